"""What a network gives where its operators run one by one, for its graph to be compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mindspore as ms
from mindspore import Tensor


def op_by_op(call: Callable[..., Any], *inputs: Tensor) -> Any:
    """Call a Cell or one of its methods in PyNative mode, and leave the mode as it was."""
    mode = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        return call(*inputs)
    finally:
        ms.set_context(mode=mode)
