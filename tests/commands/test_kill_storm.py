"""A run killed six times at random, three of them while it saves: the end is the same."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import forked
import numpy as np
import pytest
from scripts import Ended, assert_equal_weights, command, write_workspace
from small_network import WIDE

pytestmark = pytest.mark.long

KILLS = 6
IN_A_SAVE = 3
SECONDS = 3.0  # from the first step of a life to its latest end
# 5 epochs of 8 steps
KEYS = {"epoch_size": 5, "ckpt_save_steps": 2, "log_interval": 1, "val_while_train": True}
KEYS |= {"mode": 1}  # a graph would add its compilation to each life


def train(folder: Path, save_dir: str) -> Ended:
    return forked.run("train.py", folder, ckpt_save_dir=save_dir, **KEYS)


def live(folder: Path, until: Callable[[forked.Process, Path], None]) -> tuple[int | None, bool]:
    """Kill a life of the storm in time; its exit code if it ended before, and if it was saving."""
    _, *words = command("train.py", ckpt_save_dir="storm", **KEYS)
    with forked.started(folder, words) as (process, (code, out, _)):
        until(process, out)
        process.kill()
        process.join()
        saving = staging_file(folder, process).exists()
        told = code.read_text() if code.exists() else ""  # empty where it was to be written
        return int(told) if told else None, saving


def wait(process: forked.Process, pause: float, there: Callable[[], bool]) -> None:
    """Look each ``pause`` seconds if it is there, as long as the process lives."""
    deadline = time.monotonic() + forked.SECONDS
    while process.is_alive() and not there():
        assert time.monotonic() < deadline
        time.sleep(pause)


def staging_file(folder: Path, process: forked.Process) -> Path:
    return folder / "storm" / f".last.ckpt.{process.pid}"


def test_a_storm_of_kills_changes_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def a_while_after_the_first_step(process: forked.Process, out: Path) -> None:
        wait(process, 0.01, lambda: out.exists() and "  step " in out.read_text())
        process.join(rng.uniform(0, SECONDS))

    def a_moment_after_a_save_began(process: forked.Process, out: Path) -> None:
        wait(process, 0.001, staging_file(tmp_path, process).exists)
        time.sleep(rng.uniform(0, 0.1))

    write_workspace(tmp_path, 22, WIDE)
    whole = train(tmp_path, "whole")
    assert (whole.code, whole.err) == (0, "")
    kills = in_a_save = lives = 0
    while kills < KILLS or in_a_save < IN_A_SAVE:
        lives += 1
        assert lives < 4 * KILLS
        wanted = in_a_save < IN_A_SAVE and lives % 2
        until = a_moment_after_a_save_began if wanted else a_while_after_the_first_step
        code, saving = live(tmp_path, until)
        in_a_save += saving
        kills += code is None
        if code is not None:  # it came to its end: the storm goes on
            assert code == 0
            assert_equal_weights(tmp_path / "storm" / "last.ckpt", tmp_path / "whole" / "last.ckpt")
            shutil.rmtree(tmp_path / "storm")
    ended = train(tmp_path, "storm")
    assert (ended.code, ended.err) == (0, "")
    assert_equal_weights(tmp_path / "storm" / "last.ckpt", tmp_path / "whole" / "last.ckpt")
    assert_equal_weights(tmp_path / "storm" / "best.ckpt", tmp_path / "whole" / "best.ckpt")
    names = [sorted(e.name for e in (tmp_path / run).iterdir()) for run in ("whole", "storm")]
    assert names[0] == names[1]
