"""The process beside a rank that ends it, and its launcher, when another host is gone.

A collective of MindSpore waits for hours on a host that has vanished, and so does mpirun. This
process is none of theirs, and a rank that compiles or writes for minutes does not hold it up. It
says nothing to the other hosts and hears nothing from them: Linux's TCP keepalive probes its
connections, and reading one fails when nothing has answered for the time that was set on it.
This file is also the program that the process runs; see hosts.py for who is connected to whom.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time

import psutil

LEAVE_SECONDS = 30  # from the end of one rank to that of the others, before it is a failure
LAUNCHER_SECONDS = 10  # more than a launcher needs that reaches its hosts
LAUNCHERS = ("mpirun", "mpiexec", "prterun", "prted", "orterun", "orted")  # msrun ends by itself
GO_ON = "this job ends; when all hosts are there again, the same command goes on"


def watch(rank: psutil.Process, seconds: int, peers: dict[int, str]) -> None:
    """Returns when the rank has ended, by itself or because a peer was gone.

    Args:
        rank: the process to watch over, this one's parent.
        seconds: what the connections are set to, for the line that tells of it.
        peers: file descriptor of a connection: who is at its other end.
    """
    end_of_rank = os.pidfd_open(rank.pid)
    launcher = next((above for above in rank.parents() if above.name() in LAUNCHERS), None)
    gone = _gone(end_of_rank, seconds, peers)
    if gone is None:
        return
    sys.stderr.write(f"error: {gone}; {GO_ON}\n")
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # mpirun waits until nobody holds the rank's
    for process in [*rank.children(recursive=True), rank]:
        if process.pid != os.getpid():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    if launcher:
        _end_launcher(launcher)


def _gone(end_of_rank: int, seconds: int, peers: dict[int, str]) -> str | None:
    """What has happened to which peer; None if the rank ended before anything did."""
    events = select.poll()
    events.register(end_of_rank, select.POLLIN)
    connections = {}
    for number in peers:
        connections[number] = socket.socket(fileno=number)
        events.register(number, select.POLLIN)
    while True:
        ready = [number for number, _ in events.poll()]
        if end_of_rank in ready:
            return None
        for number in ready:
            try:
                connections[number].recv(1)
            except ConnectionResetError:
                pass
            except OSError as error:
                return f"{peers[number]}: not reached for {seconds} s ({error.strerror})"
            # It has ended: with its job, or alone, of which its own launcher alone may know.
            if select.select([end_of_rank], [], [], LEAVE_SECONDS)[0]:
                return None
            return f"{peers[number]}: has ended {LEAVE_SECONDS} s ago, expected it to take part"


def _end_launcher(launcher: psutil.Process) -> None:
    """Ends a launcher that waits for the host that is gone.

    Open MPI's takes three signals: an orderly end, which waits, a warning, and an end at once.
    """
    with contextlib.suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
        launcher.wait(LAUNCHER_SECONDS)
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(psutil.NoSuchProcess):
            launcher.send_signal(number)
            time.sleep(1)


if __name__ == "__main__":
    watch(
        psutil.Process(int(sys.argv[1])),
        int(sys.argv[2]),
        {int(number): peer for number, peer in zip(sys.argv[3::2], sys.argv[4::2])},
    )
