"""The scripts in processes that have imported everything already: a call takes 0.2 s instead of 3.

For many short calls. It leaves out the imports and the end of the interpreter, which `scripts` has.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess as Process
from pathlib import Path
from typing import Any

import psutil
import pytest
from scripts import NO_KERNELS, ROOT, Ended, command

SECONDS = 240
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([path.stem for path in ROOT.glob("*.py")])


@cache
def _start_server() -> None:
    """Start the process that imports everything, without graph kernels."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in NO_KERNELS.items():
            patch.setenv(name, value)
        forkserver.ensure_running()


def run(script: str, folder: Path, **keys: Any) -> Ended:
    """Run a script as `scripts.run` does, on one rank."""
    _, *words = command(script, **keys)
    return call(folder, words)


def call(folder: Path, words: Sequence[str]) -> Ended:
    """Run a script of the project, or `-m` and a module, in a folder; no process may outlive it."""
    with started(folder, words) as (process, (code, out, err)):
        process.join(SECONDS)
        left = [each for each in psutil.process_iter() if _session(each.pid) == process.pid]
        _, alive = psutil.wait_procs(left, timeout=10)  # a process that has ended stays a moment
        for each in alive:
            each.kill()
        assert alive == []
        assert code.exists(), f"{words}: ended by itself with {process.exitcode}"
        return Ended(int(code.read_text()), out.read_text(), err.read_text())


@contextmanager
def started(folder: Path, words: Sequence[str]) -> Iterator[tuple[Process, list[Path]]]:
    """Start a script as `call` does; give its process, and where its exit code and output go."""
    _start_server()
    with tempfile.TemporaryDirectory() as told:
        code, *streams = told_in = [Path(told, name) for name in ("code", "out", "err")]
        environment = {**NO_KERNELS, **os.environ}
        given = (folder, words, environment, code, streams)
        process = _processes.Process(target=_run, args=given)
        process.start()
        try:
            yield process, told_in
        finally:
            process.kill()
            process.join()


def _run(
    folder: Path,
    words: Sequence[str],
    environment: Mapping[str, str],
    code: Path,
    streams: Sequence[Path],
) -> None:
    """Run the words, and write the exit code: on a busy machine forkserver may lose it."""
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for descriptor, stream in enumerate(streams, 1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.argv[:] = words
    try:
        if words[0] == "-m":
            sys.argv.pop(0)
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as stop:
        code.write_text(str(stop.code))
    sys.stdout.flush()


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None
