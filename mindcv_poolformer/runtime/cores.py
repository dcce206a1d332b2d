"""The cores that a process may compute on, and its share of them."""

from __future__ import annotations

import math
import os
from pathlib import Path

from .cpu import ranks_here
from .environment import whole_number
from .errors import UserError

THREADS = "MINDCV_POOLFORMER_THREADS"
_CGROUPS = Path("/sys/fs/cgroup")


def cores() -> int:
    """Count the cores there are for this process: of the machine, or those it is kept to.

    That is its affinity, and a container's quota of time (cgroup v2 or v1), rounded up.
    """
    count = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    return max(1, math.ceil(min(count, _quota(_CGROUPS))))


def threads() -> int:
    """Give the number of threads that one run of a network is to have.

    ``MINDCV_POOLFORMER_THREADS`` says it, or ``OMP_NUM_THREADS``, and else it is all
    :func:`cores`, of which each rank of a launcher on this host has its share.

    Raises:
        UserError: the variable holds no count, or more than 16 for each core of the machine, under
            which it would stand still.
    """
    return _given() or max(1, cores() // ranks_here())


def share_among(processes: int) -> None:
    """Have processes that are started from here on share the cores, unless the user says else.

    Raises:
        UserError: as :func:`threads`.
    """
    if not _given():
        os.environ[THREADS] = str(max(1, cores() // max(1, processes)))


def _given() -> int:
    """The threads that the user's variables ask for, 0 for none."""
    name, count = THREADS, whole_number(THREADS, 1)
    if not count:
        name, given = "OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "")
        count = int(given) if given.isdecimal() else 0
    most = 16 * (os.cpu_count() or 1)
    if count > most:
        raise UserError(f"{name}: found {count}, expected at most {most} on this machine")
    return count


def _quota(root: Path) -> float:
    """Cores' worth of time that a container has, infinite if there is no limit."""
    try:
        if (version_2 := root / "cpu.max").is_file():
            quota, period = version_2.read_text().split()
        else:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text()
        return float(quota) / float(period) if float(quota) > 0 else math.inf
    except (OSError, ValueError):  # no such files here; or "max"
        return math.inf
