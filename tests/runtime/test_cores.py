from __future__ import annotations

import os
from pathlib import Path

import pytest

from mindcv_poolformer.runtime import cores
from mindcv_poolformer.runtime.errors import UserError


def test_the_affinity_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cores, "_CGROUPS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 4, 9})
    assert cores.cores() == 3


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "20000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "6400000 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({}, 8),
    ],
)
def test_a_containers_quota_counts(
    files: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cpu").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(cores, "_CGROUPS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    assert cores.cores() == expected


def test_ranks_of_a_host_share_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "cores", lambda: 8)
    monkeypatch.delenv(cores.THREADS, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", "3")
    assert cores.threads() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert cores.threads() == 5


def test_more_threads_than_run_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setenv(cores.THREADS, "33")
    with pytest.raises(UserError, match="THREADS: found 33, expected at most 32 on this machine"):
        cores.threads()
    monkeypatch.delenv(cores.THREADS)
    monkeypatch.setenv("OMP_NUM_THREADS", "34")
    with pytest.raises(UserError, match="OMP_NUM_THREADS: found 34, expected at most 32 on this"):
        cores.threads()


def test_workers_share_them_and_the_user_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "cores", lambda: 8)
    monkeypatch.setenv(cores.THREADS, "")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert cores.threads() == 8
    monkeypatch.delenv(cores.THREADS)
    cores.share_among(3)
    assert cores.threads() == 2
    cores.share_among(1)
    assert cores.threads() == 2
    monkeypatch.delenv(cores.THREADS)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    cores.share_among(3)
    assert cores.threads() == 5
    monkeypatch.setenv(cores.THREADS, "many")
    with pytest.raises(UserError, match="MINDCV_POOLFORMER_THREADS: found 'many', expected an int"):
        cores.threads()
