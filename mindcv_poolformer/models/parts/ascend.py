"""What the device that this process computes on has, where that is an Ascend NPU."""

from __future__ import annotations

import re

import mindspore as ms
from mindspore.ops.primitive import constexpr


@constexpr
def on_ascend() -> bool:
    """Whether this process computes on an Ascend device."""
    return ms.get_context("device_target") == "Ascend"


@constexpr
def has_flash_attention() -> bool:
    """Whether the device has ops.flash_attention_score."""
    if ms.get_context("device_target") != "Ascend":
        return False
    return trains_transformers(ms.hal.get_device_name(ms.get_context("device_id")))


def trains_transformers(device_name: str) -> bool:
    """Whether a device is one for which CANN documents aclnnFlashAttentionScore.

    The training cards of Atlas A2, Ascend910B1 to B3, and Atlas A3, Ascend910_93.. : not the first
    910, whose names end with a letter, and not the inference cards 910B4 and 310P.
    """
    return re.match(r"Ascend910(B[1-3]|_93)", device_name) is not None
