"""The one error a user can cause, and how a script ends: once said, with an exit code, for all."""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn, TextIO

from . import interrupts, scheduler

DEBUG = "--debug"
DEBUG_HELP = "print an error's traceback before its line"
SILENT_SECONDS = 10  # more than mpirun needs to end the other ranks
# How MindSpore says that there is no memory, and mostly how many bytes it asked for.
_NO_MEMORY = re.compile(
    r"(?:memory isn't enough and alloc failed|allocate (?:\w+ )?memory failed|out of memory!!!)"
    r"(?:.*?(?:alloc size: ?|malloc ?\[)(\d+))?",
    re.IGNORECASE | re.DOTALL,
)
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MS_WORKER_NUM")  # Open MPI, MPICH, msrun


class UserError(Exception):
    """A mistake outside the code: one line that names the thing, what was found, what was expected.

    The scripts print it as `error: …` on standard error and exit with code 1; the traceback comes
    with --debug alone.
    """


class UnreadableError(UserError):
    """A file of a data set that cannot be read, or not as what it is to be; see :meth:`of`.

    Of the message alone MindSpore makes it again where a data worker has raised it.
    """

    path = reason = ""

    @classmethod
    def of(cls, kind: str, path: str | Path, reason: str) -> UnreadableError:
        """Give the error of a file.

        Args:
            kind: what it is to be, such as "image".
            path: of it.
            reason: why it cannot, as it follows the two: with its own blank or colon.
        """
        error = cls(f"{kind} {path}{reason}")
        error.path = str(path)
        error.reason = " ".join(reason.removeprefix(":").split())  # another path may be in it
        return error


def run(main: Callable[[], None]) -> NoReturn:
    """Runs a script's `main` and ends the process; alone, under mpirun and under msrun.

    Exit codes: 0; 1 after a UserError, after what the system refuses (one line each) or any other
    exception (traceback); 2 after an ArgumentError, a mistake in flags or recipe (one line); 130
    after Ctrl-C; else what `SystemExit` carries. --debug, which `main` does not get to see, has
    the traceback printed before each such line. On many ranks a failure ends the whole job, and
    of the ranks on a host only the first that fails speaks: the rest is the same or its
    consequence.
    """
    debug = DEBUG in sys.argv
    sys.argv[:] = [word for word in sys.argv if word != DEBUG]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: file names may be no text
    if _on_many_ranks():
        scheduler.end_with_parent()  # no rank outlives a launcher that was killed
    interrupts.end_of_imports()
    if os.environ.get("MS_ROLE") == "MS_SCHED":  # msrun runs its scheduler through the script too
        sys.exit(scheduler.attend())
    try:
        main()
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            helped = not stop.code and {"-h", "--help"} & set(sys.argv) and not _on_many_ranks()
            more = f"\nevery command:\n  {DEBUG:<22}{DEBUG_HELP}\n" if helped else ""
            _end(stop.code or 0, "", more)
        _end(1, f"{stop.code}\n")
    except argparse.ArgumentError as error:
        _end(2, _line(str(error), debug))
    except UserError as error:
        _end(1, _line(str(error), debug))
    except OSError as error:
        _end(1, _line(_environment(error), debug) if error.errno else _trace())
    except MemoryError as error:
        _end(1, _line(str(error) or "out of memory", debug))
    except (KeyboardInterrupt, Exception) as error:
        if isinstance(error, KeyboardInterrupt) or interrupts.interrupted():
            _end(interrupts.INTERRUPTED, "interrupted\n")
        # MindSpore raises the line that kernel_compiler answers instead of its kernels.
        if failed := re.search(r"graph kernels: found .+", str(error)):
            _end(1, _line(failed[0], debug))
        if missing := _NO_MEMORY.search(str(error)):
            more = f"{int(missing[1]) / 1e9:.2f} GB more" if missing[1] else "more"
            expected = "expected it: smaller batches or images take less"
            _end(1, _line(f"out of memory: found no room for {more}, {expected}", debug))
        _end(1, _trace())  # the edge of the process: told in full, then passed on as the exit code
    _end(0, "")


@contextlib.contextmanager
def said_once() -> Iterator[None]:
    """Lets one rank of a host print what the block prints as it exits, such as usage or `--help`.

    For command lines: every rank reads the same flags and would print the same complaint. On
    many ranks the block's output is held back until it ends.
    """
    if not _on_many_ranks():
        yield
        return
    out, err = io.StringIO(), io.StringIO()
    speaks = True
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            yield
    except SystemExit:
        speaks = _may_speak()
        raise
    finally:
        if speaks:
            sys.stdout.write(out.getvalue())
            sys.stderr.write(err.getvalue())


def _line(message: str, debug: bool) -> str:
    """One line on the error that is being handled, whatever is in a path; its traceback first."""
    return (_trace() if debug else "") + f"error: {' '.join(message.splitlines())}\n"


def _trace() -> str:
    return _whose() + traceback.format_exc()


def _environment(error: OSError) -> str:
    """What the system refuses, and of which file; rename and link tell of two, the last is new."""
    name = error.filename2 or error.filename
    return f"{name}: {error.strerror}" if name else f"{error.strerror} ({DEBUG} tells where)"


def _end(code: int, message: str, output: str = "") -> NoReturn:
    """Leaves with `code`, and thereby has the launcher end the other ranks if it is not 0."""
    unwritten = _write_last(sys.stdout, output)
    if unwritten and not message:
        code, message = 1, f"error: standard output: {unwritten}\n"
    if not message or not _on_many_ranks() or _may_speak():
        _write_last(sys.stderr, message)
    if not _on_many_ranks() or (code == 0 and not _in_cluster_under_mpirun()):
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for child in multiprocessing.active_children():
        child.kill()
    if code == 0:
        sys.modules["mpi4py.MPI"].Finalize()  # waits for all ranks; else mpirun sees an abort
    # Past the destructors of MPI and MindSpore: there a failed rank waits for the others, and
    # one that succeeded reports that the scheduler has left.
    os._exit(code)


def _write_last(stream: TextIO, text: str) -> str | None:
    """Gives why it cannot be written: a full disk, a reader that has gone."""
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # Python flushes once more
        return error.strerror
    return None


def _may_speak() -> bool:
    """True for the first rank of the host that fails; holds the others until mpirun ends them.

    The mark is a file in the session directory, which mpirun makes and removes. Under msrun
    each rank writes to a log of its own, and all may speak.
    """
    session = os.environ.get("PMIX_SERVER_TMPDIR")
    if session is None:
        return True
    try:
        Path(session, "mindcv_poolformer_failed").touch(exist_ok=False)
    except FileExistsError:
        time.sleep(SILENT_SECONDS)
        return False
    return True


def _whose() -> str:
    for name in ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "RANK_ID"):
        if name in os.environ and _on_many_ranks():
            return f"rank {os.environ[name]}:\n"
    return ""


def _on_many_ranks() -> bool:
    # What is no number is told where it matters, in launch.
    sizes = (os.environ.get(name, "") for name in _SIZES)
    return any(size.isdecimal() and int(size) > 1 for size in sizes)


def _in_cluster_under_mpirun() -> bool:
    return "MS_ROLE" in os.environ and any(name in os.environ for name in _SIZES[:-1])
