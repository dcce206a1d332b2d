from __future__ import annotations

import os
import signal

import pytest

from mindcv_poolformer.runtime.interrupts import SIGNALS, StopRequest


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


def test_it_listens_again_after_others_did() -> None:
    with StopRequest() as request:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        request.listen()
        os.kill(os.getpid(), signal.SIGINT)
        assert request.received == signal.SIGINT
