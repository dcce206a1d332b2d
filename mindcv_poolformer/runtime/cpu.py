"""Environment defaults that native libraries read once, when MindSpore is imported.

``tune()`` therefore runs before any MindSpore import. It never overrides what the user has set.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

SWITCH = "MINDCV_POOLFORMER_CPU_TUNING"

_logger = logging.getLogger("mindcv_poolformer")


def tune() -> dict[str, str]:
    """Sets the defaults that ``defaults()`` names; ``MINDCV_POOLFORMER_CPU_TUNING=0`` sets none.

    Returns:
        The variables that were set, with their values; one INFO line is logged for each.
    """
    if os.environ.get(SWITCH) == "0":
        return {}
    chosen = {name: value for name, value in defaults().items() if name not in os.environ}
    for name, value in chosen.items():
        os.environ[name] = value
        _logger.info("%s=%s (default of mindcv_poolformer; %s=0 for none)", name, value, SWITCH)
    return chosen


def defaults() -> dict[str, str]:
    """The settings that suit this process on this machine, whatever the user has set.

    ``OMP_NUM_THREADS`` shares the cores among the ranks of one host. ``ONEDNN_MAX_CPU_ISA=AVX2``:
    with AVX-512, MindSpore 2.10's oneDNN takes a reference kernel for convolutions larger than
    1x1, a hundred times slower. ``GLOG_v=3`` (errors) under a launcher: at MindSpore's default
    level each rank prints about twenty lines on joining, in which a real error drowns.
    """
    settings = {}
    ranks = _ranks_on_this_host()
    if ranks > 1:
        settings["OMP_NUM_THREADS"] = str(_threads_per_rank(ranks))
        settings["GLOG_v"] = "3"
    if _has_avx512():
        settings["ONEDNN_MAX_CPU_ISA"] = "AVX2"
    return settings


def _ranks_on_this_host() -> int:
    """Ranks that share this host's cores, 1 without a launcher.

    msrun does not tell how many of its workers are on this host: all of them is a safe bound.
    """
    for name in ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "MS_WORKER_NUM"):
        if name in os.environ:
            return int(os.environ[name])
    return 1


def _threads_per_rank(ranks: int) -> int:
    """The rank's share of the cores, and no more than the launcher has bound it to."""
    cores = os.cpu_count() or 1
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    return max(1, min(bound, cores // ranks))


def _has_avx512() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.is_file() and "avx512f" in cpuinfo.read_text().split()
