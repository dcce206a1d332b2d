"""Answers that lie in one piece of memory, as a graph's may that MindSpore uses again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from mindspore import Tensor


def overwriting(network: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """As the network, but where its answer before lay: NumPy's views of that one change."""
    memory = np.empty(100_000, np.float32)

    def answer(*inputs: Tensor) -> Tensor:
        found = network(*inputs).asnumpy()
        place = memory[: found.size].reshape(found.shape)
        place[...] = found
        return Tensor.from_numpy(place)  # shares it

    return answer
