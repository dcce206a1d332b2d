"""Ranks on several hosts: who is where, and a watch that ends the job when a host is gone.

Each rank on another host than rank 0's has a connection to rank 0, and each end of it a process
that watches it (host_watch.py). So a host that vanishes is noticed by rank 0, and rank 0's host
by all others.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from . import host_watch
from .collectives import all_gather
from .environment import whole_number

VARIABLE = "MINDCV_POOLFORMER_HOST_TIMEOUT"
SILENT_SECONDS = 60  # a network that stands still for 20 s harms nothing
CONNECT_SECONDS = 30
_RECORD = 1024  # bytes
_BOOT = Path("/proc/sys/kernel/random/boot_id")

_logger = logging.getLogger("mindcv_poolformer")


Seat = dict[str, str]
Exchange = Callable[[Seat], list[Seat]]


def watch(rank: int, size: int, exchange: Exchange) -> None:
    """Starts the watch beside this rank, where ranks are on several hosts; all ranks call it.

    A rank then ends, with a line that names the host, when a host has not been reached for
    MINDCV_POOLFORMER_HOST_TIMEOUT seconds (60), whatever it is at. Where the ranks cannot be
    connected, a warning is logged and the job goes on without.

    Args:
        rank: of this process.
        size: number of ranks in the job.
        exchange: gives each rank what every rank gave it, in their order.

    Raises:
        UserError: the variable holds no number.
    """
    seconds = whole_number(VARIABLE, 1) or SILENT_SECONDS
    with socket.socket() as listener:
        seats = exchange(_seat(listener if rank == 0 else None, size))
        here = [seat["host"] for seat in seats]
        away = [other for other in range(size) if here[other] != here[0]]
        if not away or sys.platform != "linux" or (rank and rank not in away):
            return
        if seats[0]["address"].startswith(("127.", "0.")):
            if rank == 0:
                _logger.warning(
                    "hosts: not watched, rank 0's host knows itself as %s: give mpirun -x "
                    "MS_SCHED_HOST=ADDRESS",
                    seats[0]["address"],
                )
            return
        try:
            if rank:
                peers = {0: _call(seats[0], rank)}
            else:
                peers = _answer(listener, seats[0]["key"], away)
        except OSError as error:
            _logger.warning("hosts: not watched from rank %d (%s)", rank, error)
            return
    if not peers:
        return
    arguments: list[str] = []
    for other, connection in peers.items():
        _probe(connection, seconds)
        arguments += [str(connection.fileno()), _name(here, other)]
    subprocess.Popen(
        [sys.executable, os.path.abspath(host_watch.__file__), str(os.getpid()), str(seconds)]
        + arguments,
        pass_fds=[connection.fileno() for connection in peers.values()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # launchers end their ranks by group, and it may have to end them
    )
    for connection in peers.values():
        connection.close()


def exchange_by_mindspore(size: int) -> Exchange:
    """Through MindSpore's collectives, which the ranks have joined."""

    def exchange(seat: Seat) -> list[Seat]:
        record = np.frombuffer(json.dumps(seat).encode().ljust(_RECORD), np.uint16)
        return [json.loads(row.tobytes()) for row in all_gather(record, size)]

    return exchange


def _seat(listener: socket.socket | None, size: int) -> Seat:
    """This rank's host, and if it is rank 0 where it listens, and for which key."""
    boot = _BOOT.read_text().strip() if _BOOT.exists() else ""
    seat = {"host": f"{socket.gethostname()} {boot}"}
    if listener:
        with contextlib.suppress(OSError):  # else it has no address, which counts on several hosts
            listener.bind((os.environ.get("MS_SCHED_HOST") or socket.gethostname(), 0))
            listener.listen(size)
        address, port = listener.getsockname()
        seat |= {"address": address, "port": str(port), "key": secrets.token_hex(16)}
    return seat


def _call(main: Seat, rank: int) -> socket.socket:
    connection = socket.create_connection((main["address"], int(main["port"])), CONNECT_SECONDS)
    connection.sendall(_hello(main["key"], rank))
    connection.settimeout(2 * CONNECT_SECONDS)
    if not connection.recv(1):
        raise OSError("rank 0 hung up")
    return connection


def _answer(listener: socket.socket, key: str, away: list[int]) -> dict[int, socket.socket]:
    expected = {_hello(key, rank): rank for rank in away}
    length = len(next(iter(expected)))
    peers: dict[int, socket.socket] = {}
    deadline = time.monotonic() + CONNECT_SECONDS
    while len(peers) < len(away):
        listener.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            connection, _ = listener.accept()
            connection.settimeout(1)
            hello = connection.recv(length, socket.MSG_WAITALL)
        except OSError:
            hello = b""
        if hello in expected:
            connection.sendall(b"!")
            peers[expected[hello]] = connection
        elif time.monotonic() > deadline:
            missing = ", ".join(str(rank) for rank in away if rank not in peers)
            _logger.warning("hosts: not watched, ranks that did not get through: %s", missing)
            break
    return peers


def _hello(key: str, rank: int) -> bytes:
    return f"{key} {rank:8}".encode()


def _probe(connection: socket.socket, seconds: int) -> None:
    """Has Linux fail a connection over which nothing was answered for so long."""
    every = max(1, seconds // 12)
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, every)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, every)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000)


def _name(here: list[str], rank: int) -> str:
    ranks = [str(other) for other, host in enumerate(here) if host == here[rank]]
    return f"host {here[rank].split()[0]} (rank{'s' * (len(ranks) > 1)} {', '.join(ranks)})"
