"""train.py killed, stopped, starved and started twice: nothing is lost, and the end is the same."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from scripts import TWINS, Ended, Running, assert_equal_weights, command, run, write_workspace
from small_network import WIDE

pytestmark = pytest.mark.long

# All that a run carries along: moments, average, summed gradients, random draws, scores.
KEYS: dict[str, Any] = TWINS | {
    "ema": True,
    "ema_decay": 0.9,
    "gradient_accumulation_steps": 2,
    "ckpt_save_steps": 2,
    "ckpt_save_policy": None,
    "log_interval": 3,
    "epoch_size": 2,
}
STOPPED = 75


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """54 images, 6 steps of 8 an epoch, and the run that nothing happened to, in `whole`."""
    folder = write_workspace(tmp_path_factory.mktemp("interrupted"), 18, WIDE)
    ended = run("train.py", folder, ckpt_save_dir="whole", **KEYS)
    assert (ended.code, ended.err) == (0, "")
    return folder


def start(workspace: Path, save_dir: str, ranks: int = 1, **keys: Any) -> Running:
    return Running(
        workspace, command("train.py", ranks, **KEYS | {"ckpt_save_dir": save_dir} | keys)
    )


def wait_for_step(running: Running, folder: Path, step: int) -> None:
    """Wait until a checkpoint of that step or a later one stands."""
    while running.process.poll() is None:
        if saved_step(folder) >= step:
            return
        time.sleep(0.05)
    pytest.fail(running.process.stderr.read())


def saved_step(folder: Path) -> int:
    """The step of `last.ckpt`, 0 if there is none; from its last bytes, where the metadata are."""
    try:
        with (folder / "last.ckpt").open("rb") as file:
            file.seek(-20_000, os.SEEK_END)
            text = file.read().replace(b"\0", b"")  # UTF-32
            return int(re.search(rb'"position": {"step": (\d+)', text)[1])
    except OSError:
        return 0


def records(folder: Path) -> list[dict[str, Any]]:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]


def finish(workspace: Path, save_dir: str, ranks: int = 1, whole: str = "whole") -> Ended:
    """Go on to the end; it is that of the run that nothing happened to, bit by bit."""
    ended = run("train.py", workspace, ranks, **KEYS, ckpt_save_dir=save_dir)
    assert (ended.code, ended.err) == (0, "")
    for name in ("last.ckpt", "best.ckpt"):
        assert_equal_weights(workspace / save_dir / name, workspace / whole / name)
    assert records(workspace / save_dir) == records(workspace / whole)
    assert not list((workspace / save_dir).glob(".*.*"))
    return ended


def test_killed_within_an_epoch(workspace: Path) -> None:
    running = start(workspace, "killed")
    wait_for_step(running, workspace / "killed", 8)
    running.kill()
    assert saved_step(workspace / "killed") in (8, 10)
    shutil.copy(workspace / "killed" / "last.ckpt", workspace / "copy.ckpt")
    assert "last.ckpt: going on after step " in finish(workspace, "killed").out

    moved = run("train.py", workspace, **KEYS, ckpt_save_dir="moved", resume="copy.ckpt")
    assert (moved.code, moved.err) == (0, "")
    assert_equal_weights(workspace / "moved" / "last.ckpt", workspace / "whole" / "last.ckpt")
    assert "after epoch 2, moved/best.ckpt" in moved.out
    assert (workspace / "moved" / "best.ckpt").exists()


def test_asked_to_stop(workspace: Path) -> None:
    """By Ctrl-C; by SIGTERM and, under mpirun, SIGUSR1 below."""
    save_dir = "stopped"
    running = start(workspace, save_dir, python_multiprocessing=True)
    wait_for_step(running, workspace / save_dir, 2)
    running.process.send_signal(signal.SIGINT)
    ended = running.finish()
    assert (ended.code, ended.err) == (STOPPED, "")
    assert re.search(r"asked to stop: saved after step \d/6 of epoch \d; the same", ended.out)
    assert 2 < saved_step(workspace / save_dir) < 12
    finish(workspace, save_dir)


def test_a_signal_to_all_processes_stops_as_well(workspace: Path) -> None:
    """As a terminal or a batch system sends it: to the data workers, too."""
    running = start(workspace, "group", python_multiprocessing=True, num_parallel_workers=2)
    wait_for_step(running, workspace / "group", 2)
    os.killpg(running.process.pid, signal.SIGTERM)
    ended = running.finish()
    assert ended.code == STOPPED
    # MindSpore tells of its workers' end, and sends this process a SIGTERM of its own.
    assert all("SIGCHLDHandler" in line for line in ended.err.splitlines())
    finish(workspace, "group")


# Two ranks


@pytest.fixture(scope="module")
def two_ranks(workspace: Path) -> Path:
    """The run of two ranks of 4 images that nothing happened to, in `whole2`."""
    ended = run("train.py", workspace, 2, **KEYS | {"batch_size": 4}, ckpt_save_dir="whole2")
    assert (ended.code, ended.err) == (0, "")
    return workspace


def ranks_of(running: Running) -> list[psutil.Process]:
    children = psutil.Process(running.process.pid).children(recursive=True)
    trains = [child for child in children if "OMPI_COMM_WORLD_RANK" in child.environ()]
    return sorted(trains, key=lambda child: int(child.environ()["OMPI_COMM_WORLD_RANK"]))


INTERRUPTIONS: dict[str, tuple[Callable[[Running], None], int | None]] = {
    "all killed": (Running.kill, None),
    "one rank killed": (lambda running: ranks_of(running)[1].kill(), None),
    "mpirun told to stop": (lambda running: running.process.send_signal(signal.SIGUSR1), STOPPED),
    "one rank told to stop": (lambda running: ranks_of(running)[1].terminate(), STOPPED),
}


@pytest.mark.parametrize("name", INTERRUPTIONS)
def test_two_ranks_interrupted(two_ranks: Path, name: str) -> None:
    interrupt, code = INTERRUPTIONS[name]
    save_dir = name.replace(" ", "_")
    running = start(two_ranks, save_dir, 2, batch_size=4)
    wait_for_step(running, two_ranks / save_dir, 2)
    interrupt(running)
    ended = running.finish(within=30)
    assert ended.code == code if code else ended.code != 0
    assert "Traceback" not in ended.err
    assert saved_step(two_ranks / save_dir) >= 2
    keys = KEYS | {"batch_size": 4, "ckpt_save_dir": save_dir}
    assert run("train.py", two_ranks, 2, **keys).code == 0
    assert_equal_weights(two_ranks / save_dir / "last.ckpt", two_ranks / "whole2" / "last.ckpt")
    assert records(two_ranks / save_dir) == records(two_ranks / "whole2")


def test_another_number_of_ranks_goes_on_where_it_is_forced(two_ranks: Path) -> None:
    running = start(two_ranks, "forced", 2, batch_size=4)
    wait_for_step(running, two_ranks / "forced", 8)
    running.process.send_signal(signal.SIGUSR1)
    assert running.finish(within=60).code == STOPPED
    step = saved_step(two_ranks / "forced")

    keys = KEYS | {"ckpt_save_dir": "forced", "batch_size": 2, "ckpt_save_steps": None}
    refused = run("train.py", two_ranks, **keys)
    assert refused.code == 1
    assert re.search(
        r"^error: resume: .*last\.ckpt was trained with (batch_size 4, found 2|number of ranks 2, "
        r"found 1) and 1 more;.* --resume_force true\n$",
        refused.err,
    )
    assert saved_step(two_ranks / "forced") == step
    ended = run("train.py", two_ranks, **keys, resume_force=True)
    assert (ended.code, ended.err) == (0, "")
    # 54 images are 27 steps of 2; steps of 8 stood for 4 of these
    first = 27 + (step - 6) * 4
    assert f"last.ckpt: going on after step {first}\n" in ended.out
    assert saved_step(two_ranks / "forced") == 54


# Damaged, full, taken


def test_a_torn_checkpoint_is_passed_over(workspace: Path) -> None:
    running = start(workspace, "torn")
    wait_for_step(running, workspace / "torn", 8)
    running.kill()
    last = workspace / "torn" / "last.ckpt"
    os.truncate(last, last.stat().st_size // 2)
    assert re.search(
        r"torn/last\.ckpt: found no readable .*\ntorn/previous\.ckpt: going on after step \d+\n",
        finish(workspace, "torn").out,
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 150 MB, on which one checkpoint of 80 MB fits."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if not mount or subprocess.run([mount, "-t", "tmpfs", "-o", "size=150m", "x", disk]).returncode:
        pytest.skip("mounting a disk needs root")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_leaves_the_last_checkpoint(workspace: Path, small_disk: Path) -> None:
    keys = KEYS | {"val_while_train": False, "ckpt_save_dir": small_disk / "run"}
    ended = run("train.py", workspace, **keys)
    assert ended.code == 1
    assert ended.err == (
        f"error: {small_disk}/run/last.ckpt: cannot be written (No space left on device), "
        "expected a place to write to; what was there before is kept\n"
    )
    assert saved_step(small_disk / "run") == 2
    assert not list((small_disk / "run").glob(".*.*"))

    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    ended = run("train.py", workspace, **keys)
    assert ended.code == 1
    assert re.fullmatch(r"error: [^\n]*Read-only file system[^\n]*\n", ended.err)

    subprocess.run(["mount", "-o", "remount,rw,size=1g", small_disk], check=True)
    ended = run("train.py", workspace, **keys)
    assert (ended.code, ended.err) == (0, "")
    assert "last.ckpt: going on after step 2\n" in ended.out


def test_a_file_too_large_leaves_the_last_checkpoint(workspace: Path) -> None:
    """The same without root: the process may write files of 50 MB."""
    running = start(workspace, "limited")
    wait_for_step(running, workspace / "limited", 2)
    resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (50 << 20, 50 << 20))
    ended = running.finish()
    assert ended.code == 1
    assert re.fullmatch(r"error: limited/last\.ckpt: cannot be written \(File[^\n]*\n", ended.err)
    finish(workspace, "limited")


def test_a_second_run_in_the_folder_is_refused(workspace: Path) -> None:
    running = start(workspace, "taken")
    wait_for_step(running, workspace / "taken", 2)
    ended = run("train.py", workspace, **KEYS, ckpt_save_dir="taken")
    assert (ended.code, ended.out) == (1, "")
    said = f"error: taken: found it in use by process {running.process.pid} on "
    assert ended.err.startswith(said) and ended.err.count("\n") == 1
    assert running.finish().code == 0
    assert_equal_weights(workspace / "taken" / "last.ckpt", workspace / "whole" / "last.ckpt")


# Numbers that are none


def test_gradients_that_stay_nan_stop_the_run(workspace: Path) -> None:
    keys = KEYS | {"gradient_accumulation_steps": 1, "ckpt_save_dir": "nan", "warmup_epochs": 0}
    keys |= {"val_while_train": False, "lr": 1e30, "max_bad_updates": 3, "ema": False}
    ended = run("train.py", workspace, **keys)
    assert ended.code == 1
    assert re.fullmatch(
        r"error: (gradients: found Inf or NaN in 3 updates in a row|weights: found \S+ not finite)"
        r"[^\n]*\n",
        ended.err,
    )
