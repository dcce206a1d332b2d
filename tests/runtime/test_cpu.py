"""The environment that is set before MindSpore is imported."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mindcv_poolformer.runtime import cpu

NAMES = ("OMP_NUM_THREADS", "GLOG_v", "ONEDNN_MAX_CPU_ISA", cpu.SWITCH)
LAUNCHERS = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "MS_WORKER_NUM")


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Eight cores with AVX-512, no launcher, nothing set by the user."""
    for name in (*NAMES, *LAUNCHERS):
        monkeypatch.setenv(name, "")  # so that what tune() sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(cpu, "_has_avx512", lambda: True)
    return monkeypatch


def test_alone_only_the_convolution_kernel_is_chosen() -> None:
    assert cpu.tune() == {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    assert os.environ["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert "OMP_NUM_THREADS" not in os.environ


def test_nothing_without_avx512(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(cpu, "_has_avx512", lambda: False)
    assert cpu.tune() == {}


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize(
    ("ranks", "bound_to", "threads"),
    [(2, 8, 4), (3, 8, 2), (16, 8, 1), (2, 1, 1)],
)
def test_ranks_share_the_cores(
    machine: pytest.MonkeyPatch, launcher: str, ranks: int, bound_to: int, threads: int
) -> None:
    machine.setenv(launcher, str(ranks))
    machine.setattr(os, "sched_getaffinity", lambda _: set(range(bound_to)))
    assert cpu.tune()["OMP_NUM_THREADS"] == str(threads)


def test_the_user_has_the_last_word(machine: pytest.MonkeyPatch) -> None:
    machine.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", "2")
    users = {"OMP_NUM_THREADS": "7", "GLOG_v": "1", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}
    for name, value in users.items():
        machine.setenv(name, value)
    assert cpu.tune() == {}
    assert {name: os.environ[name] for name in users} == users


def test_switched_off(machine: pytest.MonkeyPatch) -> None:
    machine.setenv(cpu.SWITCH, "0")
    assert cpu.tune() == {}
    assert "ONEDNN_MAX_CPU_ISA" not in os.environ


def test_each_setting_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="mindcv_poolformer"):
        cpu.tune()
    assert [record.getMessage().split()[0] for record in caplog.records] == [
        "ONEDNN_MAX_CPU_ISA=AVX2"
    ]


def test_needs_no_mindspore() -> None:
    # By its path, because importing the package imports MindSpore.
    code = "import runpy, sys; runpy.run_path(sys.argv[1]); print('mindspore' in sys.modules)"
    command = [sys.executable, "-c", code, str(Path(cpu.__file__))]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "False\n"
