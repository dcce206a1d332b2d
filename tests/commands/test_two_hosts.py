"""train.py on two hosts: a cable that is cut, one that is bad, and folders that are not shared."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripts import BIN, Running, command, write_workspace
from two_hosts import ADDRESSES, TwoHosts, why_not

from mindcv_poolformer.runtime import host_watch, hosts

WHY_NOT = why_not()
pytestmark = [
    pytest.mark.long,
    pytest.mark.hosts,
    pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or ""),
]

LIMIT = 4  # seconds, in the place of 60
# One step an epoch, saved after each; with the cable's delays it takes seconds.
KEYS = {"epoch_size": 2, "batch_size": 24, "mode": 1, "log_interval": 1}


@pytest.fixture(scope="module")
def two_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoHosts]:
    with TwoHosts(tmp_path_factory.mktemp("plumbing")) as made:
        yield made


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return write_workspace(tmp_path)


def start(pair: TwoHosts, folder: Path, launcher: str, **keys: object) -> list[Running]:
    """Start two ranks, one on each host; give the launcher that is on each."""
    _, *words = train = command("train.py", **KEYS | keys)
    if launcher == "mpirun":
        return [Running(folder, pair.mpirun(train))]
    node = [str(BIN / "msrun"), "--worker_num=2", "--local_worker_num=1", "--join=True"]
    node += [f"--master_addr={ADDRESSES[0]}", "--master_port=29500"]
    return [
        Running(
            folder, pair.on(rank, [*node, f"--node_rank={rank}", f"--log_dir=logs{rank}", *words])
        )
        for rank in (0, 1)
    ]


def wait_for_checkpoint(folder: Path, started: list[Running]) -> None:
    deadline = time.monotonic() + 120
    while not (folder / "last.ckpt").exists():
        assert time.monotonic() < deadline
        assert all(running.process.poll() is None for running in started)
        time.sleep(0.1)


@pytest.mark.parametrize("launcher", ["mpirun", "msrun"])
def test_a_host_that_vanishes_ends_the_job_on_both(
    two_hosts: TwoHosts, workspace: Path, launcher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(hosts.VARIABLE, str(LIMIT))
    started = start(two_hosts, workspace, launcher)
    wait_for_checkpoint(workspace / "run", started)
    two_hosts.out = True
    try:
        # No process of either host may be left, says finish().
        ended = [running.finish(within=60) for running in started]
    finally:
        two_hosts.out = False
    assert all(one.code != 0 for one in ended)
    said = [ended[0].err]
    if launcher == "msrun":
        said = [(workspace / f"logs{rank}" / f"worker_{rank}.log").read_text() for rank in (0, 1)]
    for other, text in zip((1, 0), said):
        (error,) = (line for line in text.splitlines() if line.startswith("error: "))
        name = f"host {two_hosts.names[other]} (rank {other})"
        assert error.startswith(f"error: {name}: not reached for {LIMIT} s ")

    if launcher == "mpirun":
        out = start(two_hosts, workspace, launcher)[0].finish().out
        assert re.search(r"run/last\.ckpt: going on after step 1\n(.*\n)*epoch 2/2: ", out)


def test_a_host_that_vanishes_while_the_ranks_join_ends_the_job(
    two_hosts: TwoHosts, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under mpirun: before MindSpore has connected the ranks."""
    monkeypatch.setenv(hosts.VARIABLE, str(LIMIT))
    (running,) = start(two_hosts, workspace, "mpirun")
    deadline = time.monotonic() + 60
    while not any("scheduler.py" in word for words in running.commands() for word in words):
        assert time.monotonic() < deadline and running.process.poll() is None
        time.sleep(0.05)
    two_hosts.out = True
    try:
        ended = running.finish(within=60)
    finally:
        two_hosts.out = False
    assert ended.code != 0
    (error,) = (line for line in ended.err.splitlines() if line.startswith("error: "))
    assert error.startswith(f"error: host {two_hosts.names[1]} (rank 1): not reached for {LIMIT} s")


def test_the_defaults_end_a_job_within_two_minutes_and_outlast_a_stand_still() -> None:
    silent = hosts.SILENT_SECONDS + hosts.SILENT_SECONDS // 12  # a probe late
    launcher = host_watch.LAUNCHER_SECONDS + 4  # signals
    assert 40 < hosts.SILENT_SECONDS
    assert silent + host_watch.LEAVE_SECONDS + launcher < 120


def test_a_bad_cable_harms_nothing(two_hosts: TwoHosts, workspace: Path) -> None:
    """It loses frames, and all of them for 20 s."""
    started = start(two_hosts, workspace, "mpirun")
    two_hosts.loss = 0.01
    wait_for_checkpoint(workspace / "run", started)
    two_hosts.out = True
    time.sleep(20)
    two_hosts.out = False
    try:
        ended = started[0].finish()
    finally:
        two_hosts.loss = 0.0
    assert ended.code == 0 and "error: " not in ended.err
    assert "epoch 2/2: " in ended.out


def test_a_run_folder_that_is_not_shared_is_refused(
    two_hosts: TwoHosts, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace / "run").mkdir()
    monkeypatch.setenv("ON_OTHER_HOST", f"mount -t tmpfs other {workspace}/run")
    ended = start(two_hosts, workspace, "mpirun")[0].finish(within=60)
    assert ended.code == 1
    # once a host
    (error,) = {line for line in ended.err.splitlines() if line.startswith("error: ")}
    said = "error: ckpt_save_dir: found rank 0's folder run not shared with ranks: 1; expected "
    assert error.startswith(said)
    assert "Traceback" not in ended.out + ended.err
    assert [path.name for path in (workspace / "run").iterdir()] == [".lock"]
