"""Two hosts on one machine: network namespaces with host names, and a cable that can be cut.

The cable is a thread that carries frames between two tap devices; root and iproute2 make them.
"""

from __future__ import annotations

import fcntl
import os
import random
import select
import shutil
import struct
import subprocess
import sys
import threading
from pathlib import Path

from scripts import BIN

_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_TAP_WITHOUT_HEADER = 0x0002 | 0x1000
ADDRESSES = ("10.77.0.1", "10.77.0.2")


def why_not() -> str | None:
    """Why two hosts cannot be made here, None if they can."""
    if sys.platform != "linux" or os.geteuid():
        return "network namespaces want Linux and root"
    if not shutil.which("ip"):
        return "network namespaces want iproute2"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "a cable wants /dev/net/tun"
    trial = f"trial{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", trial], capture_output=True).returncode:
        return "the kernel makes no network namespaces here"
    subprocess.run(["ip", "netns", "delete", trial], check=True)
    return None


class TwoHosts:
    """The hosts `names`, at ADDRESSES, as long as the block.

    Attributes:
        out: whether the cable is out.
        loss: share of the frames that are lost, from 0 to 1.
    """

    def __init__(self, folder: Path) -> None:
        self.names = (f"ha{os.getpid()}", f"hb{os.getpid()}")
        self.out = False
        self.loss = 0.0
        self._folder = folder  # for mpirun's files

    def __enter__(self) -> TwoHosts:
        self._ends = [self._make(*host) for host in zip(self.names, ADDRESSES)]
        self._pulled, self._pull = os.pipe()
        self._cable = threading.Thread(target=self._carry)
        self._cable.start()
        (self._folder / "hosts").write_text("".join(f"{a} slots=1\n" for a in ADDRESSES))
        agent = self._folder / "agent"
        agent.write_text(
            f"#!/bin/sh\nhost={self.names[0]}\n"
            f'[ "$1" = {ADDRESSES[1]} ] && host={self.names[1]}\n'
            "shift\nexec ip netns exec $host unshare --uts "
            'sh -c "hostname $host; ${ON_OTHER_HOST:-:}; $*"\n'
        )
        agent.chmod(0o755)
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._pull)
        self._cable.join()
        for end in (*self._ends, self._pulled):
            os.close(end)
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], check=True)

    def on(self, host: int, words: list[str]) -> list[str]:
        """A command, to run on the first host or the second."""
        name = self.names[host]
        enter = ["ip", "netns", "exec", name, "unshare", "--uts"]
        return [*enter, "sh", "-c", f'hostname {name}; exec "$@"', "sh", *words]

    def mpirun(self, words: list[str]) -> list[str]:
        """A command, to run by mpirun with one rank on each host; mpirun is on the first.

        What $ON_OTHER_HOST holds runs before on the other, where mounts are its own.
        """
        options = ["--allow-run-as-root", "--bind-to", "none", "-n", "2", "--map-by", "node"]
        options += [
            "--hostfile",
            str(self._folder / "hosts"),
            "-x",
            f"MS_SCHED_HOST={ADDRESSES[0]}",
        ]
        options += ["--prtemca", "plm_ssh_agent", str(self._folder / "agent")]
        options += ["--prtemca", "prte_if_include", "10.77.0.0/24"]
        options += ["--mca", "btl_tcp_if_include", "10.77.0.0/24"]
        return self.on(0, [str(BIN / "mpirun"), *options, *words])

    def _make(self, name: str, address: str) -> int:
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        request = struct.pack("16sH22x", f"t{name}".encode(), _TAP_WITHOUT_HEADER)
        fcntl.ioctl(tap, _TUNSETIFF, request)
        ip = ["ip", "-n", name]
        for command in (
            ["ip", "netns", "add", name],
            ["ip", "link", "set", f"t{name}", "netns", name],
            [*ip, "link", "set", "lo", "up"],
            [*ip, "address", "add", f"{address}/24", "dev", f"t{name}"],
            [*ip, "link", "set", f"t{name}", "up"],
        ):
            subprocess.run(command, check=True)
        return tap

    def _carry(self) -> None:
        other = dict(zip(self._ends, reversed(self._ends)))
        while True:
            ready, _, _ = select.select([*self._ends, self._pulled], [], [])
            if self._pulled in ready:
                return
            for end in ready:
                frame = os.read(end, 65536)
                if not self.out and random.random() >= self.loss:
                    os.write(other[end], frame)
