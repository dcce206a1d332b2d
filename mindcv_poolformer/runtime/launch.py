"""Alone, under mpirun or under msrun: which rank this is, and how the ranks join.

Ascend: HCCL, for which MindSpore itself understands both launchers. CPU: MindSpore's dynamic
cluster ("mccl"); msrun prepares it, under mpirun it is prepared here.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import mindspore as ms
from mindspore import communication

from . import hosts, scheduler
from .collectives import barrier
from .environment import whole_number
from .errors import UserError
from .ports import free_port

# MindSpore's default of 30 s kills a job when one rank compiles, validates or writes for longer
# than another. A rank that dies is noticed by the launcher, whatever this is.
CPU_PATIENCE_SECONDS = 3600


@dataclass(frozen=True)
class World:
    """Who this process is in the job.

    Attributes:
        rank: 0 … size - 1.
        size: number of ranks in the job.
        local_rank: 0 … among the ranks of this host; on Ascend also the device id.
        launcher: what started the ranks.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    launcher: Literal["none", "mpirun", "msrun"] = "none"

    @property
    def is_main(self) -> bool:
        """Whether this is the rank that writes files and talks to the user."""
        return self.rank == 0


def discover() -> World:
    """Reads from the launcher who this process is; joins nothing and touches no device.

    Raises:
        UserError: mpi4py or the launcher's set-up does not fit; a variable holds no number.
    """
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        if size := whole_number(name, 1):
            return _from_mpi(size)
    if os.environ.get("MS_ROLE") == "MS_WORKER":
        return _from_msrun()
    return World()


def check_launcher(distribute: bool | None, world: World) -> None:
    """Holds the launcher against what a training recipe says of it.

    Args:
        distribute: true insists on mpirun or msrun, false on one rank, None on nothing.
        world: from `discover()`.

    Raises:
        UserError: they differ.
    """
    if distribute and world.launcher == "none":
        raise UserError(
            "distribute: found true without a launcher, expected mpirun -n RANKS python train.py "
            "... or msrun; on one device give --distribute false"
        )
    if distribute is False and world.size > 1:
        raise UserError(f"distribute: found false with {world.size} ranks, expected one")


@contextmanager
def joined(world: World, device_target: str) -> Iterator[None]:
    """Joins all ranks for data-parallel work as long as the block; alone it does nothing.

    To enter after `set_up_device` and before any Tensor, Parameter or Cell. At the end of the
    block the ranks wait for each other. Gradients are averaged (`gradients_mean`).

    Args:
        world: from `discover()`.
        device_target: "Ascend" or "CPU".
    """
    if world.size == 1:
        yield
        return
    if world.launcher == "mpirun":
        from mpi4py import MPI

        hosts.watch(world.rank, world.size, MPI.COMM_WORLD.allgather)
    with ExitStack() as cluster:
        if device_target == "CPU":
            patience = whole_number("MS_NODE_TIMEOUT", 1) or CPU_PATIENCE_SECONDS
            os.environ["MS_NODE_TIMEOUT"] = str(patience)
            if world.launcher == "mpirun":
                cluster.enter_context(_cluster(world))
        communication.init("hccl" if device_target == "Ascend" else "mccl")
        if communication.get_rank() != world.rank:
            raise RuntimeError(
                f"rank: MindSpore counts {communication.get_rank()}, {world.launcher} {world.rank}"
            )
        ms.set_auto_parallel_context(parallel_mode="data_parallel", gradients_mean=True)
        if world.launcher == "msrun":  # which tells no rank where the others are
            hosts.watch(world.rank, world.size, hosts.exchange_by_mindspore(world.size))
        yield
        barrier(world.size)


def _from_mpi(started: int) -> World:
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: it finds no MPI library
        raise UserError(
            f"mpirun: mpi4py cannot be used ({str(error).splitlines()[0]}), "
            "expected it installed with the MPI of this mpirun: pip install mpi4py"
        ) from None
    if MPI.COMM_WORLD.Get_size() != started:
        raise UserError(
            f"mpirun: started {started} ranks, mpi4py sees {MPI.COMM_WORLD.Get_size()}, "
            "expected an mpi4py that uses the MPI of this mpirun"
        )
    if os.environ.get("RANK_TABLE_FILE"):
        raise UserError(
            f"RANK_TABLE_FILE: found {os.environ['RANK_TABLE_FILE']!r}, expected it unset: "
            "under mpirun the ranks find each other without a rank table"
        )
    on_this_host = MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED)
    local_rank = on_this_host.Get_rank()
    on_this_host.Free()
    return World(MPI.COMM_WORLD.Get_rank(), started, local_rank, "mpirun")


def _from_msrun() -> World:
    rank = whole_number("MS_NODE_ID", 0)
    if rank is None:
        raise UserError("msrun: found several hosts without --node_rank, expected it on each host")
    size, local_rank = whole_number("MS_WORKER_NUM", 1), whole_number("DEVICE_ID", 0)
    if size is None or local_rank is None:
        missing = "MS_WORKER_NUM" if size is None else "DEVICE_ID"
        raise UserError(f"MS_ROLE: found it without {missing}, expected both, as msrun sets them")
    return World(rank, size, local_rank, "msrun")


@contextmanager
def _cluster(world: World) -> Iterator[None]:
    """Prepares the dynamic cluster under mpirun: rank 0 runs the scheduler, all get its address."""
    from mpi4py import MPI

    hosts = set(MPI.COMM_WORLD.allgather(socket.gethostname()))
    with ExitStack() as main_only:
        host, port = None, None
        if world.is_main:
            host = _address(alone=len(hosts) == 1)
            port = free_port(host)
            main_only.enter_context(scheduler.started(world.size, host, port))
        host, port = MPI.COMM_WORLD.bcast((host, port))
        os.environ |= {
            "MS_ROLE": "MS_WORKER",
            "MS_WORKER_NUM": str(world.size),
            "MS_SCHED_HOST": host,
            "MS_SCHED_PORT": str(port),
            "MS_NODE_ID": str(world.rank),
        }
        yield


def _address(alone: bool) -> str:
    """The address at which the other ranks reach this host; MS_SCHED_HOST has the last word."""
    if host := os.environ.get("MS_SCHED_HOST"):
        return host
    if alone:
        return "127.0.0.1"
    name = socket.gethostname()
    try:
        address = socket.gethostbyname(name)
    except OSError:
        address = "no address"
    if address.startswith("127.") or address == "no address":
        raise UserError(
            f"rank 0's host {name}: found {address}, expected one that the other hosts reach: "
            "give it with mpirun -x MS_SCHED_HOST=ADDRESS"
        )
    return address
