"""What the device that this process computes on has, where that is an Ascend NPU."""

from __future__ import annotations

import re

import mindspore as ms
from mindspore.ops.primitive import constexpr


@constexpr
def has_gelu() -> bool:
    """Whether the device has mint.nn.functional.gelu, one operator each way.

    It has no adapter for CANN's graph engine: that is jit_level O2, and up to MindSpore 2.8 the own
    choice of the first 910.
    """
    level = ms.context.get_jit_config().get("jit_level")
    name = _device_name()
    return name is not None and level != "O2" and (bool(level) or not is_first_910(name))


@constexpr
def has_flash_attention() -> bool:
    """Whether the device has ops.flash_attention_score."""
    name = _device_name()
    return name is not None and trains_transformers(name)


def _device_name() -> str | None:
    """The Ascend device that this process computes on; None on a CPU."""
    if ms.get_context("device_target") != "Ascend":
        return None
    return ms.hal.get_device_name(ms.get_context("device_id"))


def is_first_910(device_name: str) -> bool:
    """Whether a device is of the first generation: Ascend910A, Ascend910ProB and the like."""
    return re.match(r"Ascend910(Pro|Premium)?[AB]?$", device_name) is not None


def trains_transformers(device_name: str) -> bool:
    """Whether a device is one for which CANN documents aclnnFlashAttentionScore.

    The training cards of Atlas A2, Ascend910B1 to B3, and Atlas A3, Ascend910_93.. : not the first
    910, whose names end with a letter, and not the inference cards 910B4 and 310P.
    """
    return re.match(r"Ascend910(B[1-3]|_93)", device_name) is not None
