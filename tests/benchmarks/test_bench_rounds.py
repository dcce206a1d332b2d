"""Contenders that are real processes, and compute nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.contenders.serve import time_round
from benchmarks.field import check_agreement
from benchmarks.rounds import ROOT, Contender, Contest, Record, clean_environment

HERE = str(Path(__file__).parent)
SHAPE = (4, 32)


def toy(folder: Path, name: str, job: str = "noting", every: int = 1) -> Contender:
    command = ("toy_contender", job, "--model", name, "--photographs", str(folder))
    return Contender(f"toy {name}", command, every, {"PYTHONPATH": f"{ROOT}:{HERE}"})


def contest_of(folder: Path, **jobs: str) -> Contest:
    contenders = {name: toy(folder, name, job) for name, job in jobs.items()}
    return Contest(contenders, clean_environment(os.environ), folder)


def turns(folder: Path) -> str:
    return "".join((folder / "turns").read_text().split())


def test_turns_go_round(tmp_path: Path) -> None:
    contenders = {name: toy(tmp_path, name) for name in "abc"}
    contenders["d"] = toy(tmp_path, "d", every=3)
    shapes = dict.fromkeys(contenders, SHAPE)
    with Contest(contenders, clean_environment(os.environ), tmp_path) as contest:
        contest.start(shapes, at_once=3)
        assert Counter(turns(tmp_path)) == Counter("abcd")  # each has warmed up
        (tmp_path / "turns").unlink()
        contest.race(shapes, rounds=4, seconds=0.0)
        assert turns(tmp_path) == "abcd" + "bca" + "cab" + "dabc"
        outputs = contest.outputs("a")
    assert outputs.shape == (1, 4, 2) and (outputs == 32).all()
    records = contest.records
    assert [len(records[name].rounds[SHAPE]) for name in "abcd"] == [4, 4, 4, 2]
    seconds = [calls for name in "abcd" for calls in records[name].rounds[SHAPE]]
    assert all(len(calls) == 1 and calls[0] >= 0.05 for calls in seconds)
    assert records["a"].first_call_seconds[SHAPE] >= 0.05
    assert 5e6 < records["a"].peak_bytes[SHAPE] < 5e8
    assert not contest.failures


@pytest.fixture
def spinner(tmp_path: Path) -> Iterator[tuple[Contest, int]]:
    """A contest that has started a contender with a busy thread, and the process's id."""
    with contest_of(tmp_path, a="spinning") as contest:
        contest.start({"a": SHAPE})
        yield contest, child_of(os.getpid())


def child_of(parent: int) -> int:
    """The toy process that ``parent`` has started; of another process if it is not ours."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(") ")[2].split()
            words = (folder / "cmdline").read_text().split("\0")
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[1]) == parent and "toy_contender" in words:
            return int(folder.name)
    raise LookupError(f"{parent}: found no toy among its children, expected one")


def state_and_ticks(process: int) -> tuple[str, int]:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
    return fields[0], int(fields[11]) + int(fields[12])


def ticks_when_stopped(process: int) -> int:
    """The processor time that a process has taken, once the signal to stop has reached it."""
    deadline = time.monotonic() + 5
    while state_and_ticks(process)[0] != "T" and time.monotonic() < deadline:
        time.sleep(0.01)
    state, ticks = state_and_ticks(process)
    assert state == "T"
    return ticks


def test_stands_still_between_rounds(spinner: tuple[Contest, int]) -> None:
    contest, process = spinner
    before = ticks_when_stopped(process)
    time.sleep(0.3)
    assert ticks_when_stopped(process) == before
    contest.race({"a": SHAPE}, rounds=1, seconds=0.1)
    assert ticks_when_stopped(process) > before


def test_nothing_is_left(spinner: tuple[Contest, int]) -> None:
    contest, process = spinner
    contest.end(["a"])
    assert not Path(f"/proc/{process}").exists()


def test_goes_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; import sys, time; from test_bench_rounds import *\n"
        f"with contest_of(Path({str(tmp_path)!r}), a='noting') as contest:\n"
        "    contest.start({'a': SHAPE}); print('started', flush=True); time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{HERE}"},
        stdout=subprocess.PIPE,
    )
    try:
        assert parent.stdout.readline() == b"started\n"
        process = child_of(parent.pid)
        deadline = time.monotonic() + 10
        while state_and_ticks(process)[0] != "T" and time.monotonic() < deadline:
            time.sleep(0.01)  # the kernel tells those that are stopped by then
    finally:
        parent.kill()
        parent.communicate()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{process}").exists() and time.monotonic() < deadline:
        if state_and_ticks(process)[0] == "Z":  # it waits for init alone
            break
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{process}").exists()


def test_one_dies_and_the_others_go_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with contest_of(tmp_path, a="dying", b="noting", c="missing") as contest:
        contest.start(dict.fromkeys("abc", SHAPE), at_once=2)
        contest.race(dict.fromkeys("abc", SHAPE), rounds=2, seconds=0.0)
    expected = "toy a: found exit code 3, expected an answer; it said: a line | the reason"
    assert contest.failures == {"a": expected}
    assert contest.unavailable == {"c": "toy: found no compiler, expected one"}
    assert f"error: {expected}\n" in capfd.readouterr().err
    assert len(contest.records["b"].rounds[SHAPE]) == 2
    assert contest.records["a"].rounds == {}


def test_a_killed_contender_is_told_of(tmp_path: Path) -> None:
    with contest_of(tmp_path, a="noting") as contest:
        contest.start({"a": SHAPE})
        os.kill(child_of(os.getpid()), signal.SIGKILL)
        contest.race({"a": SHAPE}, rounds=1, seconds=0.0)
    assert contest.failures["a"].startswith("toy a: found exit code -9, expected an answer")


def test_environment_without_tuning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["OMP_NUM_THREADS", "ONEDNN_MAX_CPU_ISA", "MS_ENABLE_X", "MINDCV_POOLFORMER_X"]
    for name in (*names, "KEPT"):
        monkeypatch.setenv(name, "1")
    with contest_of(tmp_path, a="noting") as contest:
        contest.start({"a": SHAPE})
    seen = (tmp_path / "a.env").read_text().splitlines()
    assert "KEPT" in seen and "PATH" in seen
    assert not set(names) & set(seen)


def test_outputs_that_differ_end_a_contender(tmp_path: Path) -> None:
    with contest_of(tmp_path, deploy="noting", evaluation="noting", hf="noting") as contest:
        contest.start({"deploy": (4, 33), "evaluation": SHAPE, "hf": SHAPE})
        check_agreement(contest)
        assert contest.outputs("deploy") is None
        assert contest.outputs("evaluation") is not None
    said = "toy deploy: found outputs up to 1 off those of toy hf, expected at most 0.0001"
    assert contest.failures == {"deploy": said}


def test_spread_of_the_rounds() -> None:
    record = Record("toy", 0.0, rounds={SHAPE: [[0.5, 1.5], [2.0], [0.25, 0.25, 0.25]]})
    assert record.spread(SHAPE) == (2.0, 4.0, 16.0)  # 4 images in 2, 1 and 0.25 s


def test_time_round() -> None:
    calls = []

    def call() -> None:
        calls.append(None)
        time.sleep(0.02)

    taken = time_round(call, 0.1)
    assert sum(taken) >= 0.1 > sum(taken[:-1])
    assert len(calls) == len(taken) + 1  # the first one does not count
    calls.clear()
    taken = time_round(call, 0.1, settle=4)
    assert len(calls) == len(taken) + 4
    calls.clear()
    assert len(time_round(call, 0.001)) == len(calls) == 1  # unless it fills the round


def test_outputs_are_those_of_the_last_shape(tmp_path: Path) -> None:
    with contest_of(tmp_path, a="noting") as contest:
        contest.start({"a": SHAPE})
        contest.prepare({"a": (1, 64)})
        np.testing.assert_array_equal(contest.outputs("a"), np.full((1, 1, 2), 64))
