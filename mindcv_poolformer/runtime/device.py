"""The device a process computes on, and how its graphs run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import mindspore as ms
from mindspore import device_context
from mindspore._c_expression import MSContext

from .errors import UserError
from .launch import World
from .mindspore_log import unlogged


def set_up_device(
    device_target: Literal["Ascend", "CPU"],
    mode: int,
    jit_level: Literal["O0", "O1", "O2"] | None,
    world: World,
    deterministic: bool = False,
    hf32: bool = False,
) -> None:
    """Chooses device and execution mode; to call before `joined` and before any Tensor.

    Args:
        device_target: on Ascend the device id is the local rank.
        mode: 0 graph, 1 PyNative.
        jit_level: optimisation level of graph compilation, None for the device's own.
        world: from `discover()`.
        deterministic: have Ascend's kernels reduce in a fixed order, at some cost; the CPU's do.
        hf32: let Ascend's convolutions and products of float32 round to 11 bits of mantissa, CANN's
            own choice for convolutions on Atlas A2.

    Raises:
        UserError: no such device here, or fewer devices than ranks on this host.
    """
    if device_target == "Ascend":
        _check_ascend(world)
        ms.set_device("Ascend", world.local_rank)
        precision = device_context.ascend.op_precision
        precision.conv_allow_hf32(hf32)
        precision.matmul_allow_hf32(hf32)
        if deterministic:
            ms.set_deterministic(True)
    else:
        ms.set_device("CPU")
    ms.set_context(mode=mode)
    if jit_level is not None:
        ms.set_context(jit_config={"jit_level": jit_level})  # which amp.all_finite reads


@contextlib.contextmanager
def in_mode(mode: int) -> Iterator[None]:
    """Within the block MindSpore runs graphs (0), or operators one by one (1)."""
    before = ms.get_context("mode")
    ms.set_context(mode=mode)
    try:
        yield
    finally:
        ms.set_context(mode=before)


def _check_ascend(world: World) -> None:
    with unlogged():
        available = device_context.ascend.is_available()
    if not available:
        reason = " ".join(MSContext.get_instance().load_plugin_error().split())
        raise UserError(
            "device_target: found no usable Ascend device (driver, CANN and an Ascend build of "
            "MindSpore), expected one, or --device_target CPU"
            + (f"; MindSpore says: {reason}" if reason else "")
        )
    devices = device_context.ascend.device_count()
    if world.local_rank >= devices:
        raise UserError(
            f"{world.launcher}: found rank {world.local_rank + 1} on a host of {devices} devices, "
            f"expected at most {devices} ranks a host"
        )
