"""Real jobs under mpirun and msrun: who they are, what they exchange, how they end.

Of msrun's ranks that train, and of one mistake that all ranks make, tell
tests/commands/test_two_ranks.py; of a rank killed beside the first, test_interrupted_runs.py.
"""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.runtime.launch import discover
from mindcv_poolformer.runtime.ports import free_port

ROOT = Path(__file__).parents[2]
JOB = Path(__file__).with_name("job_for_ranks.py")
BAD_FLAG = Path(__file__).with_name("bad_flag_for_ranks.py")
BIN = Path(sys.executable).parent
ENDS_WITHIN = 30  # seconds from a rank's failure to the end of the job

Launch = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def launch() -> Iterator[Launch]:
    """Starts a command in a session of its own; after the test, no process of it may be left."""
    mark = uuid.uuid4().hex
    started = []

    def start(*command: str, **variables: str) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "GLOG_v": "3",
            "JOB_UNDER_TEST": mark,
            **variables,
        }
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    left = _marked(mark)
    deadline = time.monotonic() + 5
    while left and time.monotonic() < deadline:
        time.sleep(0.2)
        left = _marked(mark)
    commands = [" ".join(process.cmdline()) for process in left]
    for process in left:
        process.kill()
    for process in started:
        process.communicate()
    assert commands == []


def _marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("JOB_UNDER_TEST") == mark and process.is_running():
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def mpirun(*words: str, ranks: int = 2, job: Path = JOB) -> list[str]:
    return [
        *(str(BIN / "mpirun"), "-n", str(ranks)),
        *("--allow-run-as-root", "--oversubscribe", "--bind-to", "none"),
        *(sys.executable, str(job), *words),
    ]


def msrun(logs: Path, *words: str, ranks: int = 2, job: Path = JOB) -> list[str]:
    return [
        *(str(BIN / "msrun"), f"--worker_num={ranks}", f"--local_worker_num={ranks}"),
        *("--join=True", f"--master_port={free_port()}", f"--log_dir={logs}", str(job), *words),
    ]


def wait_for_ranks(process: subprocess.Popen[str], count: int) -> None:
    while count:
        line = process.stdout.readline()
        assert line, "the job ended before its ranks had joined"
        count -= line.startswith("World(")


def finish(process: subprocess.Popen[str], within: float = 120) -> str:
    return process.communicate(timeout=within)[0]


def test_alone_needs_no_mpi(launch: Launch) -> None:
    no_mpi = "import sys, runpy; sys.modules['mpi4py'] = None; sys.argv = sys.argv[1:];"
    no_mpi += "runpy.run_path(sys.argv[0], run_name='__main__')"
    process = launch(sys.executable, "-c", no_mpi, str(JOB), "exit 3")
    assert finish(process) == "World(rank=0, size=1, local_rank=0, launcher='none') 0\n"
    assert process.returncode == 3


def test_alone_interrupted(launch: Launch) -> None:
    process = launch(sys.executable, str(JOB), "sleep")
    wait_for_ranks(process, 1)
    assert process.stdout.readline() == "asleep\n"  # MindSpore may drop a KeyboardInterrupt
    time.sleep(0.5)  # it says so before it is
    process.send_signal(signal.SIGINT)
    assert finish(process) == "interrupted\n"
    assert process.returncode == 130


@pytest.mark.long
def test_mpirun_ranks_and_collectives(launch: Launch) -> None:
    process = launch(*mpirun("success"))
    assert sorted(finish(process).splitlines()) == [
        "World(rank=0, size=2, local_rank=0, launcher='mpirun') 0",
        "World(rank=1, size=2, local_rank=1, launcher='mpirun') 1",
        *["noticed: parameters: ranks [1] differ from rank 0, expected equal ones"] * 2,
    ]
    assert process.returncode == 0


def test_mpirun_without_mpi4py(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(UserError, match="mpirun: mpi4py cannot be used"):
        discover()


def test_mpirun_refuses_a_rank_table(launch: Launch) -> None:
    process = launch(*mpirun("success", ranks=1), RANK_TABLE_FILE="table.json")
    assert "error: RANK_TABLE_FILE: found 'table.json', expected it" in finish(process)
    assert process.returncode == 1


def test_mpirun_bad_flag_is_said_once(launch: Launch) -> None:
    process = launch(*mpirun(job=BAD_FLAG))
    assert finish(process).count("error: bad flag") == 1
    assert process.returncode == 2


@pytest.mark.long
def test_a_rank_that_fails_says_why_and_ends_the_job(launch: Launch) -> None:
    """Of the other's failure, which is the consequence, nothing is said."""
    process = launch(*mpirun("exception, then UserError elsewhere"))
    wait_for_ranks(process, 2)
    output = finish(process, within=ENDS_WITHIN)
    assert "rank 1:\nTraceback (most recent call last):" in output
    assert output.count("Traceback") == 1
    assert "error: " not in output
    assert process.returncode == 1


@pytest.mark.long
def test_a_rank_that_is_killed_ends_the_job(launch: Launch) -> None:
    """The first, which has the scheduler."""
    process = launch(*mpirun("killed first"))
    wait_for_ranks(process, 2)
    output = finish(process, within=ENDS_WITHIN)
    assert "process rank 0" in output and "Traceback" not in output
    assert process.returncode == 137


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_mpirun_that_is_ended_ends_everything(launch: Launch, number: signal.Signals) -> None:
    process = launch(*mpirun("sleep"))
    wait_for_ranks(process, 2)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does on Ctrl-C
    else:
        process.send_signal(number)
    finish(process, within=ENDS_WITHIN)
    assert process.returncode != 0


@pytest.mark.long
def test_msrun_bad_flag_ends_the_job(launch: Launch, tmp_path: Path) -> None:
    process = launch(*msrun(tmp_path, job=BAD_FLAG))
    finish(process, within=2 * ENDS_WITHIN)
    assert process.returncode == 1


@pytest.mark.long
def test_msrun_of_one_rank_succeeds_with_it(launch: Launch, tmp_path: Path) -> None:
    """It joins no cluster: the scheduler waits for it in vain."""
    process = launch(*msrun(tmp_path, "exit 0", ranks=1))
    finish(process, within=2 * ENDS_WITHIN)
    assert process.returncode == 0


@pytest.mark.long
def test_msrun_ends_with_a_rank_that_is_killed(launch: Launch, tmp_path: Path) -> None:
    process = launch(*msrun(tmp_path, "killed first"))
    wait_for_ranks(process, 2)
    finish(process, within=ENDS_WITHIN)
    assert process.returncode == 1


@pytest.mark.long
def test_msrun_that_is_interrupted_ends_everything(launch: Launch, tmp_path: Path) -> None:
    process = launch(*msrun(tmp_path, "sleep"))
    wait_for_ranks(process, 2)
    os.killpg(process.pid, signal.SIGINT)
    finish(process, within=ENDS_WITHIN)
