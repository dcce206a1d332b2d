"""The environment that is set before MindSpore is imported, and graph kernels."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mindspore as ms
import psutil
import pytest

from mindcv_poolformer.runtime import cpu
from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.runtime.mindspore_log import unlogged

CHOSEN = ("OMP_WAIT_POLICY", "MS_COMPILER_CACHE_PATH", "AKG_WHITE_LIST_PATH")
NAMES = (*CHOSEN, "OMP_NUM_THREADS", "GLOG_v", "XDG_CACHE_HOME", cpu.SWITCH, cpu.FUSION_SWITCH)
LAUNCHERS = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "MS_WORKER_NUM")
SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")

COMPILE = """
import mindcv_poolformer
import mindspore as ms
from mindcv_poolformer.models.parts.activations import GELU

ms.set_device("CPU")
ms.set_context(mode=ms.GRAPH_MODE)
print(GELU()(ms.Tensor([1.0, 2.0, 3.0])).shape)
"""
ROOT = str(Path(cpu.__file__).parents[2])


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Eight cores, no NPU, no launcher, nothing set by the user."""
    for name in (*NAMES, *LAUNCHERS, *SIZES):
        monkeypatch.setenv(name, "")  # so that what tune() sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(cpu, "has_ascend", lambda: False)
    return monkeypatch


@pytest.fixture
def unfused(tmp_path: Path, machine: pytest.MonkeyPatch) -> Iterator[None]:
    """Graph kernels off, and afterwards as they were."""
    machine.chdir(tmp_path)
    before = ms.get_context("enable_graph_kernel")
    with unlogged():
        ms.set_context(enable_graph_kernel=False)
    yield
    with unlogged():
        ms.set_context(enable_graph_kernel=before)


def test_alone_threads_and_compiler_are_set(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine.setenv("HOME", str(tmp_path))
    expected = {
        "OMP_WAIT_POLICY": "PASSIVE",
        "MS_COMPILER_CACHE_PATH": str(tmp_path / ".cache" / "mindcv_poolformer" / "kernels"),
        "AKG_WHITE_LIST_PATH": str(Path(ms.__file__).parent / "_akg"),
    }
    assert cpu.tune() == expected
    assert {name: os.environ[name] for name in CHOSEN} == expected
    assert "OMP_NUM_THREADS" not in os.environ
    assert Path(expected["AKG_WHITE_LIST_PATH"]).is_dir()


def test_a_home_that_takes_no_folder_is_left_alone(
    machine: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    machine.setenv("HOME", str(tmp_path / "file"))
    assert "MS_COMPILER_CACHE_PATH" not in cpu.tune()


def test_the_cache_folder_is_the_users(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine.setenv("XDG_CACHE_HOME", str(tmp_path))
    kernels = str(tmp_path / "mindcv_poolformer" / "kernels")
    assert cpu.tune()["MS_COMPILER_CACHE_PATH"] == kernels


def test_nothing_on_a_host_with_ascend(machine: pytest.MonkeyPatch, unfused: None) -> None:
    machine.setattr(cpu, "has_ascend", lambda: True)
    machine.setenv("MS_WORKER_NUM", "2")
    assert cpu.tune() == {}
    assert not set(NAMES) & set(os.environ)
    assert not cpu.fuse()
    assert not ms.get_context("enable_graph_kernel")


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
    chosen = cpu.tune()
    assert chosen["OMP_NUM_THREADS"] == str(threads)
    assert chosen["GLOG_v"] == "3"


def test_a_rank_a_host_has_all_cores_and_little_log(machine: pytest.MonkeyPatch) -> None:
    machine.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", "1")
    machine.setenv("OMPI_COMM_WORLD_SIZE", "2")
    chosen = cpu.tune()
    assert "OMP_NUM_THREADS" not in chosen
    assert chosen["GLOG_v"] == "3"


def test_the_user_has_the_last_word(machine: pytest.MonkeyPatch) -> None:
    machine.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", "2")
    users = {"OMP_WAIT_POLICY": "ACTIVE", "OMP_NUM_THREADS": "7", "GLOG_v": "1"}
    users |= {"MS_COMPILER_CACHE_PATH": "/kernels", "AKG_WHITE_LIST_PATH": "/lists"}
    for name, value in users.items():
        machine.setenv(name, value)
    assert cpu.tune() == {}
    assert {name: os.environ[name] for name in users} == users


def test_switched_off(machine: pytest.MonkeyPatch) -> None:
    machine.setenv(cpu.SWITCH, "0")
    assert cpu.tune() == {}
    assert not set(CHOSEN) & set(os.environ)


def test_each_setting_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="mindcv_poolformer"):
        chosen = cpu.tune()
    assert tuple(chosen) == CHOSEN
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split()[0] for line in lines] == [f"{n}={v}" for n, v in chosen.items()]
    assert all(f"{cpu.SWITCH}=0 for none" in line for line in lines)


def test_graph_kernels_are_on(unfused: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="mindcv_poolformer"):
        assert cpu.fuse()
    assert ms.get_context("enable_graph_kernel") is True
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert cpu.FUSION_SWITCH in record.getMessage()


def test_graph_kernels_are_off_within_a_block(unfused: None) -> None:
    with cpu.unfused():
        assert not ms.get_context("enable_graph_kernel")
    assert not ms.get_context("enable_graph_kernel")
    cpu.fuse()
    with pytest.raises(UserError), cpu.unfused():
        assert not ms.get_context("enable_graph_kernel")
        raise UserError("within it")
    assert ms.get_context("enable_graph_kernel")


@pytest.mark.parametrize("switch", [cpu.SWITCH, cpu.FUSION_SWITCH])
def test_graph_kernels_are_switched_off(
    unfused: None, machine: pytest.MonkeyPatch, switch: str
) -> None:
    machine.setenv(switch, "0")
    assert not cpu.fuse()
    assert not ms.get_context("enable_graph_kernel")


def test_without_the_compilers_dependency_there_is_a_warning(
    unfused: None, machine: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    find = importlib.util.find_spec
    machine.setattr(
        importlib.util, "find_spec", lambda name: None if name == "decorator" else find(name)
    )
    assert not cpu.fuse()
    assert not ms.get_context("enable_graph_kernel")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "decorator" in record.getMessage()


def run(code: str, folder: Path) -> str:
    """Run code in a new process, in a folder of its own, with a kernel cache that is empty."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": ROOT}
    (folder / "work").mkdir(exist_ok=True)
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=folder / "work", env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
def test_compiling_survives_a_broken_pipe_and_leaves_no_file_where_it_runs(tmp_path: Path) -> None:
    broken = """
import os
reader, writer = os.pipe()
os.close(reader)
try:
    os.write(writer, b"x")
except BrokenPipeError:
    print(GELU()(ms.Tensor([[1.0, 2.0]] * 3)).shape)
"""
    assert run(COMPILE + broken, tmp_path).splitlines()[-2:] == ["(3,)", "(3, 2)"]
    assert any((tmp_path / "cache").rglob("*.o")), "nothing was compiled"
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.long
def test_a_compiler_that_gives_up_takes_a_line(tmp_path: Path) -> None:
    """One without patience, in the place of MindSpore's that has 300 s."""
    server = next(cpu.COMPILER.glob("*.py"))
    impatient = re.sub("(?<=^PATIENCE_SECONDS = ).*", "0", server.read_text(), flags=re.MULTILINE)
    (tmp_path / server.name).write_text(impatient)
    code = """
import sys
from mindspore._c_expression import GraphExecutor_
from mindcv_poolformer.runtime.errors import run
GraphExecutor_.get_instance().set_kernel_build_server_dir(f"{FOLDER}/")
run(lambda: GELU()(ms.Tensor([1.0, 2.0, 3.0])))
"""
    lines = COMPILE.splitlines()[:-1]
    code = "\n".join([*lines, f"FOLDER = {str(tmp_path)!r}", *code.splitlines()])
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": ROOT}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        r"error: graph kernels: found TimeoutError after \d+ s of compiling, expected kernels: try "
        r"again with less else to do for this machine, or do without them by "
        r"MINDCV_POOLFORMER_GRAPH_KERNELS=0\n",
        done.stderr,
    )


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="which processes there are is told by Linux")
def test_signals_to_all_processes_do_not_end_compiling(tmp_path: Path) -> None:
    """As a batch system sends them; MindSpore would give up after three."""
    heeding = """
from mindcv_poolformer.runtime.interrupts import StopRequest
with StopRequest() as request:
    print(GELU()(ms.Tensor([1.0, 2.0, 3.0])).shape, request.received.name)
"""
    code = COMPILE.replace(COMPILE.splitlines()[-1], heeding)
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": ROOT}
    running = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

    def apart() -> bool:
        children = psutil.Process(running.pid).children()
        return any(os.getpgid(child.pid) != running.pid for child in children)

    while not apart():
        assert running.poll() is None, running.communicate()[1]
        time.sleep(0.01)
    for _ in range(6):
        os.killpg(running.pid, signal.SIGTERM)
        time.sleep(0.02)
    out, err = running.communicate()
    assert (running.returncode, out.splitlines()[-1]) == (0, "(3,) SIGTERM"), err
    assert "interrupted" not in err
    assert any((tmp_path / "cache").rglob("*.o")), "nothing was compiled"


def test_a_users_file_of_that_name_stays(tmp_path: Path) -> None:
    log = tmp_path / "work" / cpu.COMPILER_LOG
    log.parent.mkdir()
    log.write_text("mine\n")
    run("import mindcv_poolformer", tmp_path)
    assert log.read_text() == "mine\n"


def test_set_before_mindspore_is_imported(tmp_path: Path) -> None:
    code = """
import os, sys
seen = []
def watch(event, arguments):
    if event == "import" and arguments[0].split(".")[0] == "mindspore" and not seen:
        seen.append(os.environ.get("OMP_WAIT_POLICY"))
sys.addaudithook(watch)
import mindcv_poolformer, mindspore
print(seen[0])
"""
    assert run(code, tmp_path).splitlines()[-1] == "PASSIVE"
