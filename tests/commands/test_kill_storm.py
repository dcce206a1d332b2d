"""A run killed ten times at random, three of them while it saves: the end is the same."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from scripts import Running, assert_equal_weights, command, write_workspace
from small_network import WIDE

pytestmark = pytest.mark.long

KILLS = 10
IN_A_SAVE = 3
SECONDS = 4.0  # from the first step of a life to its latest end
# 5 epochs of 8 steps
KEYS = {"epoch_size": 5, "ckpt_save_steps": 2, "log_interval": 1, "val_while_train": True}
KEYS |= {"mode": 1}  # a graph would add its compilation to each life


def start(folder: Path, save_dir: str) -> Running:
    return Running(folder, command("train.py", ckpt_save_dir=save_dir, **KEYS))


def kill_at_random(running: Running, rng: np.random.Generator) -> bool:
    """Kill a while after the first step; False if the run ended before."""
    for line in running.process.stdout:
        if "  step " in line:
            break
    time.sleep(rng.uniform(0, SECONDS))
    alive = running.process.poll() is None
    running.kill()
    return alive


def kill_in_a_save(running: Running, folder: Path, rng: np.random.Generator) -> bool:
    """Kill a moment after a file that is being written has appeared; False if it was none."""
    staging = f".last.ckpt.{running.process.pid}"
    while running.process.poll() is None:
        if (folder / staging).exists():
            time.sleep(rng.uniform(0, 0.1))
            running.kill()
            return (folder / staging).exists()
        time.sleep(0.001)
    return False


def test_a_storm_of_kills_changes_nothing(tmp_path: Path) -> None:
    write_workspace(tmp_path, 22, WIDE)
    whole = start(tmp_path, "whole").finish()
    assert (whole.code, whole.err) == (0, "")
    rng = np.random.default_rng(0)
    kills = in_a_save = lives = 0
    while kills < KILLS or in_a_save < IN_A_SAVE:
        lives += 1
        assert lives < 3 * KILLS
        running = start(tmp_path, "storm")
        if in_a_save < IN_A_SAVE and lives % 2:
            hit = kill_in_a_save(running, tmp_path / "storm", rng)
            in_a_save += hit
        else:
            hit = kill_at_random(running, rng)
        kills += hit
        if not hit and running.process.returncode == 0:  # it came to its end: the storm goes on
            assert_equal_weights(tmp_path / "storm" / "last.ckpt", tmp_path / "whole" / "last.ckpt")
            shutil.rmtree(tmp_path / "storm")
    ended = start(tmp_path, "storm").finish()
    assert (ended.code, ended.err) == (0, "")
    assert_equal_weights(tmp_path / "storm" / "last.ckpt", tmp_path / "whole" / "last.ckpt")
    assert_equal_weights(tmp_path / "storm" / "best.ckpt", tmp_path / "whole" / "best.ckpt")
    names = [sorted(e.name for e in (tmp_path / run).iterdir()) for run in ("whole", "storm")]
    assert names[0] == names[1]
