"""The scheduler of MindSpore's dynamic cluster: the process through which ranks find each other.

Under mpirun on the CPU rank 0 starts it; msrun starts it itself. On its own it outlives a failed
job by half a minute up to forever, and meanwhile holds the port: here it ends with the job.
This file is also the program that the scheduler process runs.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

START_SECONDS = 120  # importing MindSpore on a busy machine
GRACE_SECONDS = 10  # a scheduler notices every 5 s that its workers have left
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@contextmanager
def started(workers: int, host: str, port: int) -> Iterator[None]:
    """Runs a scheduler for as long as the block, and no longer than this process.

    Args:
        workers: number of ranks it waits for.
        host: address of this host, at which the ranks reach it.
        port: that it listens on.

    Raises:
        RuntimeError: it ended or did not listen in time; the message carries its output.
    """
    # A process with the variables of mpirun would take itself for a rank.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OMPI_", "PMIX_", "PRTE_", "PMI_"))
    }
    environment |= {
        "MS_ROLE": "MS_SCHED",
        "MS_WORKER_NUM": str(workers),
        "MS_SCHED_HOST": host,
        "MS_SCHED_PORT": str(port),
    }
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = _spawn(environment, output.fileno())
        try:
            if not _listens(process, host, port):
                output.seek(0)
                raise RuntimeError(f"scheduler at {host}:{port} did not start:\n{output.read()}")
            yield
        finally:
            process.kill()
            process.wait()


def attend() -> int:
    """Runs the scheduler for msrun, at most until every worker of this host is gone.

    With --join=True msrun waits for its scheduler however the workers ended, and the scheduler
    waits for workers that no longer exist, 35 s if they had joined, or that never joined, such as
    one alone: as long as its time-out allows. Without, msrun has gone, and whatever adopted this
    process may have other children: then the scheduler ends by itself.

    Returns:
        The exit code of the scheduler; 0 if it had to be ended: how its workers did, msrun knows.
    """
    with _spawn(dict(os.environ), None) as process:
        while process.poll() is None and _siblings():
            time.sleep(1)
        try:
            return process.wait(GRACE_SECONDS if process.returncode is None else None)
        except subprocess.TimeoutExpired:
            process.kill()
            return 0


def _spawn(environment: dict[str, str], output: int | None) -> subprocess.Popen[bytes]:
    command = [sys.executable, os.path.abspath(__file__), str(os.getpid())]
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
    )


def _listens(process: subprocess.Popen[bytes], host: str, port: int) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection((host, port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return True
    return False


def _siblings() -> bool:
    """Whether the launcher has a living child beside this process."""
    import psutil

    for child in psutil.Process(os.getppid()).children():
        try:
            if child.pid != os.getpid() and child.status() != psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            continue
    return False


def end_with_parent() -> None:
    """Has Linux kill this process when its parent ends, however that ends, SIGKILL included."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _serve(parent: int) -> None:
    """The scheduler process itself."""
    end_with_parent()
    if os.getppid() != parent:  # it had ended before the line above
        return
    import mindspore as ms
    from mindspore import communication

    ms.set_device("CPU")
    communication.init("mccl")


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
