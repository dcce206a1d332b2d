"""What a network gives where its operators run one by one, for its graph to be compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mindspore as ms
from mindspore import Tensor

from mindcv_poolformer.runtime.device import in_mode


def op_by_op(call: Callable[..., Any], *inputs: Tensor) -> Any:
    """Call a Cell or one of its methods in PyNative mode, and leave the mode as it was."""
    with in_mode(ms.PYNATIVE_MODE):
        return call(*inputs)
