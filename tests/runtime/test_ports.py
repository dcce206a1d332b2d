from __future__ import annotations

import socket

import pytest

from mindcv_poolformer.runtime import ports

HOST = "127.0.0.77"  # where no other test listens


def test_no_port_is_given_twice_or_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server((HOST, ports.free_port(HOST))) as other:
        taken = other.getsockname()[1]
        monkeypatch.setattr(ports, "RANGE", range(taken - 3, taken + 1))
        monkeypatch.setattr(ports, "_given", set())
        assert {ports.free_port(HOST) for _ in range(3)} == {taken - 3, taken - 2, taken - 1}
        with pytest.raises(OSError):
            ports.free_port(HOST)
