"""Signals that ask a run to stop: it finishes what it is at, and stops of its own accord."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType

# Open MPI's mpirun passes SIGUSR1 on to its ranks; SIGTERM it follows with SIGKILL at once.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
EXIT_CODE = 75  # sysexits.h, EX_TEMPFAIL: to be tried again
INTERRUPTED = 130  # as a shell tells of Ctrl-C
SCRIPTS = ("train.py", "validate.py", "export.py", "predict.py", "explain.py")

_interrupted = threading.Event()


def quit_while_importing() -> None:
    """Has Ctrl-C end a script of ours with a line while it imports, which takes seconds.

    As a KeyboardInterrupt it would be raised anywhere within MindSpore. Other programs that import
    this package keep it.
    """
    main = Path(getattr(sys.modules["__main__"], "__file__", None) or "").resolve()
    ours = main.parent == Path(__file__).resolve().parents[2] and main.name in SCRIPTS
    if ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _quit)


def end_of_imports() -> None:
    """From here on Ctrl-C raises KeyboardInterrupt again, and `interrupted` knows of it."""
    if signal.getsignal(signal.SIGINT) in (_quit, signal.default_int_handler):
        signal.signal(signal.SIGINT, _interrupt)


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Within the block a script that imports what takes seconds ends as in the beginning."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    ours = in_main_thread and signal.getsignal(signal.SIGINT) is _interrupt
    if ours:
        signal.signal(signal.SIGINT, _quit)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, _interrupt)


def interrupted() -> bool:
    """Whether Ctrl-C has raised KeyboardInterrupt, be it where Python drops it.

    While MindSpore compiles that is at the end, or in a __del__ before MindSpore's own error.
    """
    return _interrupted.is_set()


def _quit(number: int, frame: FrameType | None) -> None:
    with contextlib.suppress(OSError):  # standard error may be closed
        os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _interrupted.set()
    sys.unraisablehook = _drop
    raise KeyboardInterrupt


def _drop(unraisable: object) -> None:
    """After Ctrl-C: says nothing of what a __del__ raises."""


class StopRequest:
    """Within the block the first of SIGNALS sets ``received``, and nothing else happens.

    A second Ctrl-C raises KeyboardInterrupt. A RuntimeError after a signal ends the process with
    a line and EXIT_CODE.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def __enter__(self) -> StopRequest:
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        self.listen()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.received and isinstance(error, RuntimeError):
            # In the moment that MindSpore's compiler of kernels starts, before it has left this
            # process group, or sent to it by its number, the signal ends the compiler, too.
            said = (str(error).splitlines() or [""])[0]
            print(
                f"asked to stop: MindSpore did not end what it was at ({said}); what was saved "
                "last stands, and the same command goes on from there",
                flush=True,
            )
            sys.exit(EXIT_CODE)

    def listen(self) -> None:
        """Take the signals over, again too: MindSpore's compiler takes SIGINT for itself."""
        for number in SIGNALS:
            signal.signal(number, self._note)
            if number != signal.SIGINT:
                # MindSpore gives its compiler up when reading from it was interrupted three times.
                signal.siginterrupt(number, False)

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """Within the block this thread, and a process that it starts, do not see Ctrl-C.

        A terminal sends that to MindSpore's compiler of kernels, too, which would end with a
        traceback. It is noted at the end of the block, or by another thread before.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            self.listen()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or signal.Signals(number)
