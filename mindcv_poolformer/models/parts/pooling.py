"""3x3 average pooling, stride 1, whose padding does not count in the mean."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops.primitive import constexpr

from .layout import channels_last


class AveragePool(nn.Cell):
    """3x3 average pooling, stride 1; the padding does not count in the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.AvgPool2d(3, stride=1, pad_mode="same")
        self.box = _BoxMean()

    def construct(self, x: Tensor) -> Tensor:
        return self.box(x) if channels_last() else self.same(x)


class _BoxMean(nn.Cell):
    """Average pooling of a channels-last map: first over the columns, then over the rows."""

    def construct(self, x: Tensor) -> Tensor:
        n, height, width, channels = x.shape
        x = _average(x.reshape(n, height, width * channels))
        x = _average(x.reshape(-1, width, channels))
        return x.reshape(n, height, width, channels)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        n, height, width, channels = x.shape
        dout = _spread(dout.reshape(n, height, width * channels))
        dout = _spread(dout.reshape(-1, width, channels))
        return (dout.reshape(n, height, width, channels).astype(x.dtype),)


def _average(x: Tensor) -> Tensor:
    """Average each row of the middle axis of (N, L, R) with those before and after it."""
    if x.shape[1] <= 32:  # one product beats copies where rows are few
        y = ops.matmul(_band(x.shape[1]).astype(x.dtype), x)
    else:
        y = (_sum_of_three(x.astype(ms.float32)) * _inverse_counts(x.shape[1])).astype(x.dtype)
    return y


def _spread(x: Tensor) -> Tensor:
    """The transpose of :func:`_average`: its gradient."""
    if x.shape[1] <= 32:
        y = ops.matmul(_band(x.shape[1]).T.astype(x.dtype), x)
    else:
        y = _sum_of_three(x.astype(ms.float32) * _inverse_counts(x.shape[1])).astype(x.dtype)
    return y


def _sum_of_three(x: Tensor) -> Tensor:
    zeros = ops.zeros((x.shape[0], 1, x.shape[2]), x.dtype)
    padded = ops.concat((zeros, x, zeros), 1)
    return x + padded[:, :-2] + padded[:, 2:]


@constexpr
def _inverse_counts(length: int) -> Tensor:
    """Give 1 / (how many there are) of each row, the one before and the one after, (L, 1)."""
    counts = np.convolve(np.ones(length), np.ones(3))[1:-1]
    return Tensor((1 / counts)[:, None].astype(np.float32))


@constexpr
def _band(length: int) -> Tensor:
    near = abs(np.subtract.outer(np.arange(length), np.arange(length))) <= 1
    return Tensor((near / near.sum(1, keepdims=True)).astype(np.float32))
