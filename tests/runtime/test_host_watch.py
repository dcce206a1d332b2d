"""What the watch makes of its rank's end and of its peers', and whom rank 0 connects to."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from mindcv_poolformer.runtime import host_watch, hosts

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the watch wants Linux")
PEER = "host b (rank 1)"


@pytest.fixture
def rank() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "100"]) as process:
        yield process
        process.kill()


def gone(rank: subprocess.Popen[bytes], end: socket.socket) -> str | None:
    return host_watch._gone(os.pidfd_open(rank.pid), 60, {end.detach(): PEER})


def test_a_rank_that_ends_is_its_own_affair(rank: subprocess.Popen[bytes]) -> None:
    here, there = socket.socketpair()
    rank.kill()
    assert gone(rank, here) is None
    there.close()


def test_a_rank_has_time_to_end_after_the_others(rank: subprocess.Popen[bytes]) -> None:
    here, there = socket.socketpair()
    there.close()
    threading.Timer(0.2, rank.kill).start()
    assert gone(rank, here) is None


def test_a_rank_that_stays_when_another_has_ended_is_ended(
    rank: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_watch, "LEAVE_SECONDS", 0)
    here, there = socket.socketpair()
    there.close()
    assert gone(rank, here) == f"{PEER}: has ended 0 s ago, expected it to take part"


def test_rank_0_connects_to_its_ranks_and_to_no_stranger() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address, port = listener.getsockname()
        seat = {"address": address, "port": str(port), "key": "k" * 32}
        called: dict[int, socket.socket] = {}

        def call() -> None:
            socket.create_connection((address, port)).close()  # a port scanner
            with socket.create_connection((address, port)) as liar:
                liar.sendall(hosts._hello("x" * 32, 1))
            called.update({rank: hosts._call(seat, rank) for rank in (3, 1)})

        caller = threading.Thread(target=call)
        caller.start()
        peers = hosts._answer(listener, seat["key"], [1, 3])
        caller.join()
    for rank, connection in called.items():
        connection.sendall(b"%d" % rank)
        assert peers[rank].recv(1) == b"%d" % rank
    assert peers.keys() == called.keys()


def test_ranks_that_do_not_get_through_are_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hosts, "CONNECT_SECONDS", 0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert hosts._answer(listener, "k" * 32, [1, 2]) == {}
    assert "ranks that did not get through: 1, 2" in caplog.text


def test_a_host_is_told_by_name_and_ranks() -> None:
    assert hosts._name(["a 1", "b 2", "b 2"], 1) == "host b (ranks 1, 2)"
    assert hosts._name(["a 1", "b 2", "b 2"], 0) == "host a (rank 0)"


def test_seats_go_through_mindspores_collectives_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hosts, "all_gather", lambda array, size: np.stack([array] * size))
    seat = {"host": "b\u00fccher 2", "address": "10.0.0.1", "port": "1", "key": "k" * 32}
    assert hosts.exchange_by_mindspore(3)(seat) == [seat] * 3


def test_a_host_that_knows_itself_as_loopback_alone_is_told_what_to_give(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for address, known in (("127.0.0.1", "127.0.0.1"), ("256.1.1.1", "0.0.0.0")):
        caplog.clear()
        monkeypatch.setenv("MS_SCHED_HOST", address)
        hosts.watch(0, 2, lambda own: [own, {"host": "b 2"}])
        assert f"knows itself as {known}: give mpirun -x MS_SCHED_HOST=ADDRESS" in caplog.text
