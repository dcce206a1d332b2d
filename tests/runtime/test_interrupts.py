from __future__ import annotations

import os
import signal

import pytest

from mindcv_poolformer.runtime.interrupts import EXIT_CODE, SIGNALS, StopRequest


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
