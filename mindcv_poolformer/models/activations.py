"""Activations of a MetaFormer."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops


def squared_relu(x: Tensor) -> Tensor:
    """Give relu(x)^2 (arXiv 2109.08668), squared in float32: 256^2 is beyond float16."""
    positive = ops.relu(x.astype(ms.float32))
    return (positive * positive).astype(x.dtype)


class SquaredReLU(nn.Cell):
    """relu(x)^2."""

    def construct(self, x: Tensor) -> Tensor:
        return squared_relu(x)


class StarReLU(nn.Cell):
    """scale * relu(x)^2 + bias, both of them learnt (arXiv 2210.13452, section 3.3); in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = Parameter(Tensor(np.ones(1, np.float32)))
        self.bias = Parameter(Tensor(np.zeros(1, np.float32)))

    def construct(self, x: Tensor) -> Tensor:
        scale, bias = self.scale.astype(ms.float32), self.bias.astype(ms.float32)
        return (scale * squared_relu(x.astype(ms.float32)) + bias).astype(x.dtype)
