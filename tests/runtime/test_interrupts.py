from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mindcv_poolformer.runtime import interrupts
from mindcv_poolformer.runtime.interrupts import EXIT_CODE, SCRIPTS, SIGNALS, StopRequest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_nothing_else(number: signal.Signals) -> None:
    before = {n: signal.getsignal(n) for n in SIGNALS}
    with StopRequest() as request:
        assert request.received is None
        os.kill(os.getpid(), number)
        assert request.received == number
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.received == number
    assert {n: signal.getsignal(n) for n in SIGNALS} == before


def test_a_second_ctrl_c_interrupts() -> None:
    with pytest.raises(KeyboardInterrupt), StopRequest():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_an_error_of_the_compiler_after_a_signal_is_the_signals(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as end, StopRequest():
        os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("Response is empty.\n\n--- C++ Call Stack")
    assert end.value.code == EXIT_CODE
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("asked to stop: ") and "(Response is empty.)" in line
    with pytest.raises(RuntimeError), StopRequest():
        raise RuntimeError("without a signal")


def test_it_listens_again_after_others_did() -> None:
    with StopRequest() as request:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        request.listen()
        os.kill(os.getpid(), signal.SIGINT)
        assert request.received == signal.SIGINT


def test_ctrl_c_does_not_reach_the_compiler_and_is_noted_after_it() -> None:
    with StopRequest() as request:
        with request.compiling():
            signal.signal(signal.SIGINT, signal.default_int_handler)  # as MindSpore does
            child = subprocess.Popen(["sleep", "0.3"])
            child.send_signal(signal.SIGINT)
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            assert child.wait() == 0
            assert request.received is None
        assert request.received == signal.SIGINT


@pytest.fixture(autouse=True)
def _heeded() -> Iterator[None]:
    """What a shell starts in the background ignores Ctrl-C, and so do its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform != "linux", reason="what a process has loaded is told by Linux")
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_that_is_interrupted_while_it_imports_says_so(script: str) -> None:
    process = subprocess.Popen(
        [sys.executable, str(ROOT / script)], stderr=subprocess.PIPE, text=True
    )
    library = "numpy" if script == "predict.py" else "mindspore"  # which it may do without
    while library not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1] == "interrupted\n"
    assert process.returncode == 130


def test_other_programs_keep_their_interrupt() -> None:
    interrupts.quit_while_importing()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_script_that_has_imported_all_is_interrupted_in_the_usual_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    main = sys.modules["__main__"]  # of pytest-xdist, it has no file
    monkeypatch.setattr(main, "__file__", str(ROOT / "train.py"), raising=False)
    monkeypatch.setattr(interrupts, "_interrupted", threading.Event())
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    interrupts.quit_while_importing()
    assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    interrupts.end_of_imports()
    usual = signal.getsignal(signal.SIGINT)
    with interrupts.importing():  # what was not wanted before
        assert signal.getsignal(signal.SIGINT) is interrupts._quit
    assert signal.getsignal(signal.SIGINT) is usual
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
