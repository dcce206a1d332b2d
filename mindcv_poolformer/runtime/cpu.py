"""What makes MindSpore quick on a CPU: environment defaults, and graph kernels.

Native libraries read the environment once, when MindSpore is imported: ``tune()`` runs before, and
``fuse()`` after. Neither overrides what the user has set, or does anything on a host with Ascend
NPUs, or where MindSpore simulates one (``MS_SIMULATION_LEVEL``).
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from .environment import home
from .mindspore_log import unlogged

SWITCH = "MINDCV_POOLFORMER_CPU_TUNING"
FUSION_SWITCH = "MINDCV_POOLFORMER_GRAPH_KERNELS"
# Left out of the kernels, since MindSpore 2.10 miscompiles them: Cast does not compile, and with
# Reshape maps of one place do not, and a depthwise convolution's gradients come out wrong. Select
# takes the wrong ones where its condition is broadcast, and Exp is off by 3e-4 of itself.
KERNEL_FLAGS = "--disable_cluster_ops=Cast,Reshape,Select,Exp"
COMPILER = Path(__file__).parent / "kernel_compiler"
COMPILER_LOG = "dsa_transfrom.log"  # the graph kernels' compiler leaves it where it runs
# msrun does not tell how many of its workers are on this host: all of them is a safe bound.
_LOCAL_RANKS = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "MS_WORKER_NUM")
_ALL_RANKS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MS_WORKER_NUM")

_logger = logging.getLogger("mindcv_poolformer")


def tune() -> dict[str, str]:
    """Sets the defaults that ``defaults()`` names; ``MINDCV_POOLFORMER_CPU_TUNING=0`` sets none.

    Returns:
        The variables that were set, with their values; one INFO line is logged for each.
    """
    if os.environ.get("OMP_NUM_THREADS") == "":
        del os.environ["OMP_NUM_THREADS"]  # of which libgomp would complain
    if os.environ.get(SWITCH) == "0" or has_ascend():
        return {}
    chosen = {name: value for name, value in defaults().items() if not os.environ.get(name)}
    for name, value in chosen.items():
        os.environ[name] = value
        _logger.info("%s=%s (default of mindcv_poolformer; %s=0 for none)", name, value, SWITCH)
    return chosen


def defaults() -> dict[str, str]:
    """The settings that suit this process on this machine, whatever the user has set.

    ``OMP_WAIT_POLICY=PASSIVE``: the graph kernels' idle threads otherwise spin on the cores that
    oneDNN needs. ``OMP_NUM_THREADS`` shares the cores among the ranks of one host.
    ``MS_COMPILER_CACHE_PATH``: compiled graph kernels are found again by the next process; the
    default is the working directory. ``AKG_WHITE_LIST_PATH``: their compiler prints a line for
    each kernel unless it may read its own tables. ``GLOG_v=3`` (errors) under a launcher: at
    MindSpore's default level each rank prints about twenty lines on joining, in which a real error
    drowns.
    """
    settings = {"OMP_WAIT_POLICY": "PASSIVE"}
    if cache := _cache_folder():
        settings["MS_COMPILER_CACHE_PATH"] = str(cache)
    mindspore = importlib.util.find_spec("mindspore")
    if mindspore and mindspore.origin:
        settings["AKG_WHITE_LIST_PATH"] = str(Path(mindspore.origin).parent / "_akg")
    ranks = ranks_here()
    if ranks > 1:
        settings["OMP_NUM_THREADS"] = str(_threads_per_rank(ranks))
    if max(ranks, _first_number(*_ALL_RANKS)) > 1:
        settings["GLOG_v"] = "3"
    return settings


def fuse() -> bool:
    """Has MindSpore fuse chains of elementwise operators into graph kernels, if it computes here.

    ``MINDCV_POOLFORMER_GRAPH_KERNELS=0`` leaves that off, as ``MINDCV_POOLFORMER_CPU_TUNING=0``
    does. One line is logged: INFO, or WARNING where the compiler's dependency is missing. SIGPIPE
    is blocked from here on in this thread and those that it starts. The compiler, a process that
    MindSpore starts with the first kernel, does not get signals to the group of this one.
    """
    if not _may_fuse():
        return False
    import mindspore as ms
    from mindspore._c_expression import GraphExecutor_

    if importlib.util.find_spec("decorator") is None:  # without it, compiling never ends
        _logger.warning("graph kernels: found no package decorator, expected it; not fused")
        return False
    with unlogged():  # deprecated in favour of a jit_level that does not do it on the CPU
        ms.set_context(enable_graph_kernel=True)
        if not ms.get_context("graph_kernel_flags"):
            ms.set_context(graph_kernel_flags=KERNEL_FLAGS)
    GraphExecutor_.get_instance().set_kernel_build_server_dir(f"{COMPILER}{os.sep}")
    block_broken_pipes()
    if not Path(COMPILER_LOG).exists():
        atexit.register(Path(COMPILER_LOG).absolute().unlink, missing_ok=True)
    _logger.info("graph kernels on (default of mindcv_poolformer; %s=0 for none)", FUSION_SWITCH)
    return True


def block_broken_pipes() -> None:
    """Block SIGPIPE in this thread and those that it starts, if MindSpore may come to fuse.

    At one, which Python ignores, MindSpore 2.10 closes the process that compiles kernels and opens
    no other: one client that hangs up, and a server could load no further network.
    """
    if _may_fuse():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})


def _may_fuse() -> bool:
    return "0" not in (os.environ.get(SWITCH), os.environ.get(FUSION_SWITCH)) and not has_ascend()


@contextlib.contextmanager
def unfused() -> Iterator[None]:
    """Within the block graphs are compiled without graph kernels."""
    import mindspore as ms

    if not ms.get_context("enable_graph_kernel"):
        yield
        return
    with unlogged():
        ms.set_context(enable_graph_kernel=False)
    try:
        yield
    finally:
        with unlogged():
            ms.set_context(enable_graph_kernel=True)


def _cache_folder() -> Path | None:
    """The user's folder for compiled kernels, None where it cannot be written."""
    given, at_home = os.environ.get("XDG_CACHE_HOME"), home()
    absolute = given and os.path.isabs(given)  # others are to be ignored, by XDG's specification
    caches = Path(given) if given and absolute else at_home and at_home / ".cache"
    if caches is None:
        return None
    folder = caches / "mindcv_poolformer" / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def has_ascend() -> bool:
    """Whether this host has an Ascend NPU, the device files of its driver, or simulates one."""
    return bool(os.environ.get("MS_SIMULATION_LEVEL")) or any(Path("/dev").glob("davinci[0-9]*"))


def ranks_here() -> int:
    """How many ranks a launcher has started on this host, at most."""
    return _first_number(*_LOCAL_RANKS)


def _first_number(*variables: str) -> int:
    """Of those that a launcher sets, 1 without one; what is no number is told in launch."""
    values = (os.environ.get(name, "") for name in variables)
    return next((int(value) for value in values if value.isdecimal() and int(value)), 1)


def _threads_per_rank(ranks: int) -> int:
    """The rank's share of the cores, and no more than the launcher has bound it to."""
    cores = os.cpu_count() or 1
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    return max(1, min(bound, cores // ranks))
