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

import forked
import psutil
import pytest
from scripts import TWINS, Running, assert_equal_weights, command, run, write_workspace
from small_network import SMALL, WIDE

pytestmark = pytest.mark.long

# All that a run carries along: moments, average, summed gradients, random draws, scores.
KEYS: dict[str, Any] = TWINS | {
    "ckpt_save_steps": 2,
    "ckpt_save_policy": None,
    "log_interval": 3,
    "epoch_size": 4,
    "mode": 1,  # a graph, which test_train_script.py has, would add its compilation to each life
}
STEPS = 24
OF_TWO = {"batch_size": 4}
STOPPED = 75


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """54 images, 6 steps of 8 an epoch, and the run that nothing happened to, in `whole`."""
    folder = write_workspace(tmp_path_factory.mktemp("interrupted"), 18, WIDE)
    ended = forked.run("train.py", folder, ckpt_save_dir="whole", **KEYS)
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
    """The step of `last.ckpt`, 0 if it is not there or torn; from its last bytes, its metadata."""
    try:
        with (folder / "last.ckpt").open("rb") as file:
            file.seek(-20_000, os.SEEK_END)
            text = file.read().replace(b"\0", b"")  # UTF-32
            found = re.search(rb'"position": {"step": (\d+)', text)
            return int(found[1]) if found else 0
    except OSError:
        return 0


def records(folder: Path) -> list[dict[str, Any]]:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]


def assert_equal_ends(folder: Path, whole: Path) -> None:
    """The last weights and all records are equal bit by bit, and nothing is left half written."""
    assert_equal_weights(folder / "last.ckpt", whole / "last.ckpt")
    assert records(folder) == records(whole)
    assert not list(folder.glob(".*.*"))


# One process. Each test ends a life of the same run in a way of its own, wherever it stands, and
# the last lets it come to its end: importing is what a life costs.


def go_on(workspace: Path, save_dir: str, ranks: int = 1, **keys: Any) -> tuple[Running, Path]:
    """Start the next life of a run, and let it save once; give its last checkpoint, too."""
    folder = workspace / save_dir
    before = saved_step(folder)
    running = start(workspace, save_dir, ranks, **keys)
    wait_for_step(running, folder, before + 1)
    return running, folder / "last.ckpt"


def test_asked_to_stop(workspace: Path) -> None:
    """By Ctrl-C; by SIGTERM and, under mpirun, SIGUSR1 below."""
    running, last = go_on(workspace, "lives", python_multiprocessing=True)
    before = saved_step(last.parent)
    running.process.send_signal(signal.SIGINT)
    ended = running.finish()
    assert (ended.code, ended.err) == (STOPPED, "")
    assert re.search(r"asked to stop: saved after step \d/6 of epoch \d; the same", ended.out)
    assert before < saved_step(last.parent) < STEPS


def test_a_signal_to_all_processes_stops_as_well(workspace: Path) -> None:
    """As a terminal or a batch system sends it: to the data workers, too."""
    running, _ = go_on(workspace, "lives", python_multiprocessing=True, num_parallel_workers=2)
    os.killpg(running.process.pid, signal.SIGTERM)
    ended = running.finish()
    assert ended.code == STOPPED
    assert "lives/last.ckpt: going on after step " in ended.out
    # MindSpore tells of its workers' end, and sends this process a SIGTERM of its own.
    assert all("SIGCHLDHandler" in line for line in ended.err.splitlines())


def test_killed_within_an_epoch(workspace: Path) -> None:
    """Its checkpoint comes to the same end in a folder of its own, too."""
    running, last = go_on(workspace, "lives")
    wait_for_step(running, last.parent, 8)
    running.kill()
    assert saved_step(last.parent) % 2 == 0
    shutil.copy(last, workspace / "copy.ckpt")
    (workspace / "moved").mkdir()
    (workspace / "moved" / "corrupt_images.txt").write_text("of another run\tis an empty file\n")

    moved = forked.run("train.py", workspace, **KEYS, ckpt_save_dir="moved", resume="copy.ckpt")
    assert (moved.code, moved.err) == (0, "")
    assert_equal_weights(workspace / "moved" / "last.ckpt", workspace / "whole" / "last.ckpt")
    assert re.search(r"after epoch [234], moved/best\.ckpt", moved.out)
    assert (workspace / "moved" / "best.ckpt").exists()
    assert not (workspace / "moved" / "corrupt_images.txt").exists()


def test_a_torn_checkpoint_is_passed_over(workspace: Path) -> None:
    """By the next life, whose checkpoints may become no larger than 50 MB: a full disk, below."""
    running, last = go_on(workspace, "lives")
    wait_for_step(running, last.parent, 4)  # then there is a previous one
    running.kill()
    os.truncate(last, last.stat().st_size // 2)

    running = start(workspace, "lives")
    resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (50 << 20, 50 << 20))
    ended = running.finish()
    assert re.search(
        r"lives/last\.ckpt: found no readable .*\nlives/previous\.ckpt: going on after step \d+\n",
        ended.out,
    )
    assert ended.code == 1
    assert re.fullmatch(r"error: lives/last\.ckpt: cannot be written \(File[^\n]*\n", ended.err)


def test_the_end_is_that_of_the_run_that_nothing_happened_to(workspace: Path) -> None:
    """Bit by bit. A second run in the folder is refused meanwhile."""
    running, last = go_on(workspace, "lives")
    refused = forked.run("train.py", workspace, **KEYS, ckpt_save_dir="lives")
    assert (refused.code, refused.out) == (1, "")
    said = f"error: lives: found it in use by process {running.process.pid} on "
    assert refused.err.startswith(said) and refused.err.count("\n") == 1

    ended = running.finish()
    assert (ended.code, ended.err) == (0, "")
    assert "lives/previous.ckpt: going on after step " in ended.out
    assert_equal_ends(last.parent, workspace / "whole")
    assert_equal_weights(last.parent / "best.ckpt", workspace / "whole" / "best.ckpt")


# Two ranks, in the same way


@pytest.fixture(scope="module")
def two_ranks(workspace: Path) -> Path:
    """The run of two ranks of 4 images that nothing happened to, in `whole2`."""
    ended = run("train.py", workspace, 2, **KEYS | OF_TWO, ckpt_save_dir="whole2")
    assert (ended.code, ended.err) == (0, "")
    return workspace


def ranks_of(running: Running) -> list[psutil.Process]:
    children = psutil.Process(running.process.pid).children(recursive=True)
    trains = [child for child in children if "OMPI_COMM_WORLD_RANK" in child.environ()]
    return sorted(trains, key=lambda child: int(child.environ()["OMPI_COMM_WORLD_RANK"]))


INTERRUPTIONS: dict[str, tuple[Callable[[Running], None], int | None]] = {
    "one rank killed": (lambda running: ranks_of(running)[1].kill(), None),
    "one rank told to stop": (lambda running: ranks_of(running)[1].terminate(), STOPPED),
    "mpirun told to stop": (lambda running: running.process.send_signal(signal.SIGUSR1), STOPPED),
}


@pytest.mark.parametrize("name", INTERRUPTIONS)
def test_two_ranks_interrupted(two_ranks: Path, name: str) -> None:
    interrupt, code = INTERRUPTIONS[name]
    running, last = go_on(two_ranks, "lives2", 2, **OF_TWO)
    before = saved_step(last.parent)
    interrupt(running)
    ended = running.finish(within=60)
    assert ended.code == code if code else ended.code != 0
    assert "Traceback" not in ended.err
    assert before <= saved_step(last.parent) < STEPS
    if code:  # the others wait until the first has reported
        assert "curves: lives2/curves.png" in ended.out
        assert ("best: " in ended.out) == (saved_step(last.parent) >= STEPS // 4)


def test_another_number_of_ranks_goes_on_where_it_is_forced(two_ranks: Path) -> None:
    """From where the lives of two ranks stand."""
    shutil.copytree(two_ranks / "lives2", two_ranks / "forced")
    step = saved_step(two_ranks / "forced")
    keys = KEYS | {"ckpt_save_dir": "forced", "batch_size": 4, "ckpt_save_steps": None}
    refused = forked.run("train.py", two_ranks, **keys)
    assert refused.code == 1
    assert re.search(
        r"^error: resume: .*last\.ckpt was trained with number of ranks 2, found 1;"
        r".* --resume_force true\n$",
        refused.err,
    )
    assert saved_step(two_ranks / "forced") == step
    ended = forked.run("train.py", two_ranks, **keys, resume_force=True)
    assert (ended.code, ended.err) == (0, "")
    # 54 images are 13 steps of 4; steps of 8 stood for 2 of these
    epochs, steps = divmod(step, 6)
    assert f"last.ckpt: going on after step {13 * epochs + 2 * steps}\n" in ended.out
    assert saved_step(two_ranks / "forced") == 13 * KEYS["epoch_size"]


def test_the_end_of_two_ranks_is_that_of_the_run_that_nothing_happened_to(two_ranks: Path) -> None:
    ended = run("train.py", two_ranks, 2, **KEYS | OF_TWO, ckpt_save_dir="lives2")
    assert (ended.code, ended.err) == (0, "")
    assert_equal_ends(two_ranks / "lives2", two_ranks / "whole2")


# Full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 110 MB, on which one checkpoint of 65 MB fits."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if not mount or subprocess.run([mount, "-t", "tmpfs", "-o", "size=110m", "x", disk]).returncode:
        pytest.skip("mounting a disk needs root")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_leaves_the_last_checkpoint(workspace: Path, small_disk: Path) -> None:
    keys = KEYS | {"val_while_train": False, "ckpt_save_dir": small_disk / "run", "epoch_size": 1}
    keys |= {"warmup_epochs": 0}
    ended = forked.run("train.py", workspace, **keys)
    assert ended.code == 1
    assert ended.err == (
        f"error: {small_disk}/run/last.ckpt: cannot be written (No space left on device), "
        "expected a place to write to; what was there before is kept\n"
    )
    assert saved_step(small_disk / "run") == 2
    assert not list((small_disk / "run").glob(".*.*"))

    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    ended = forked.run("train.py", workspace, **keys)
    assert ended.code == 1
    assert re.fullmatch(r"error: [^\n]*Read-only file system[^\n]*\n", ended.err)

    subprocess.run(["mount", "-o", "remount,rw,size=1g", small_disk], check=True)
    ended = forked.run("train.py", workspace, **keys)
    assert (ended.code, ended.err) == (0, "")
    assert "last.ckpt: going on after step 2\n" in ended.out


# Numbers that are none


def test_gradients_that_stay_nan_stop_the_run(workspace: Path) -> None:
    keys = KEYS | {"gradient_accumulation_steps": 1, "ckpt_save_dir": "nan", "warmup_epochs": 0}
    keys |= {"val_while_train": False, "lr": 1e30, "max_bad_updates": 3, "ema": False}
    keys |= {"model": SMALL}
    ended = forked.run("train.py", workspace, **keys)
    assert ended.code == 1
    assert re.fullmatch(
        r"error: (gradients: found Inf or NaN in 3 updates in a row|weights: found \S+ not finite)"
        r"[^\n]*\n",
        ended.err,
    )
