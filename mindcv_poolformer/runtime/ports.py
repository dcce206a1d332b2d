"""Ports that stay free until a server which is just starting listens there."""

from __future__ import annotations

import random
import socket

# Below those that Linux gives to connections: one of these could be taken by any of them, or by
# mpirun itself, in the seconds that a server needs to start.
RANGE = range(20_000, 32_000)
_given: set[int] = set()


def free_port(host: str = "127.0.0.1") -> int:
    """Gives a port on which nothing listens, another one each time that a process asks.

    Args:
        host: an address of this machine.

    Raises:
        OSError: the address is not this machine's, or a hundred ports of RANGE are taken.
    """
    refused = OSError()
    left = [port for port in RANGE if port not in _given]
    for port in random.SystemRandom().sample(left, min(100, len(left))):
        try:
            socket.create_server((host, port)).close()
        except OSError as error:
            refused = error
        else:
            _given.add(port)
            return port
    raise refused
