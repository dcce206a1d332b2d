"""What computes on maps (N, H, W, C), which is how a MetaFormer lays them on every device.

Linear layers, attention and norms over channels want them so; the official code has it too.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.ops.primitive import constexpr

from .kernels import channels_last, standardize

NORM_EPS = 1e-6


def on_channels_last(cell: nn.Cell, x: Tensor) -> Tensor:
    """Call a cell whose maps lie as the device likes them on a map (N, H, W, C)."""
    if channels_last():
        return cell(x)
    return cell(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)


def lay_channels_last(x: Tensor) -> Tensor:
    """Lay a map (N, H, W, C) that lies as the device likes it."""
    return x if channels_last() else x.transpose(0, 2, 3, 1)


def lay_for_device(x: Tensor) -> Tensor:
    """Lay a map (N, H, W, C) as the device likes it."""
    return x if channels_last() else x.transpose(0, 3, 1, 2)


class SampleNorm(nn.Cell):
    """Each sample of a map (N, H, W, C) is normalised, eps 1e-6; a scale, no shift."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = Parameter(Tensor(np.ones(channels, np.float32)))

    def construct(self, x: Tensor) -> Tensor:
        return (standardize(x, NORM_EPS) * self.gamma).astype(x.dtype)


class ChannelNorm(nn.Cell):
    """Each place of a map (N, H, W, C) is normalised over its channels, eps 1e-6; no shift."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = Parameter(Tensor(np.ones(channels, np.float32)))

    def construct(self, x: Tensor) -> Tensor:
        return standardize_channels(x, self.gamma)


def standardize_channels(x: Tensor, gamma: Tensor | None = None) -> Tensor:
    """Give (x - mean) / sqrt(variance + 1e-6) over the last axis, times ``gamma`` (C,)."""
    if not channels_last():
        scale = ops.ones(x.shape[-1:], x.dtype) if gamma is None else gamma.astype(x.dtype)
        return ops.LayerNorm(-1, -1, NORM_EPS)(x, scale, ops.zeros_like(scale))[0]
    normed = standardize_along(x, -1, NORM_EPS)
    return (normed if gamma is None else normed * gamma).astype(x.dtype)


def standardize_along(x: Tensor, axis: int, eps: float) -> Tensor:
    """Give (x - mean) / sqrt(variance + eps) over one axis, in float32."""
    part = 1.0 / x.shape[axis]
    wide = x.astype(ms.float32)
    centred = wide - wide.sum(axis, keepdims=True) * part
    variance = (centred * centred).sum(axis, keepdims=True) * part
    return centred * ops.rsqrt(variance + eps)


class DepthwiseConv(nn.Conv2d):
    """A convolution of each channel alone, stride 1, without bias; the kernel's size is odd.

    On the CPU a row of the result is one product: the rows that it sees, end to end, times a band
    matrix of the weights. MindSpore 2.10's own convolution takes several times as long there.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__(
            channels,
            channels,
            kernel_size,
            pad_mode="pad",
            padding=kernel_size // 2,
            group=channels,
            has_bias=False,
        )
        self.product = ops.BatchMatMul()

    def construct(self, x: Tensor) -> Tensor:
        if not channels_last():
            return super().construct(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
        # In float32: fused into graph kernels, MindSpore 2.10 mixes up the rows of float16.
        n, height, width, channels = x.shape
        size, padding = self.kernel_size[0], self.padding
        weight = self.weight.astype(ms.float32).reshape(channels * size, size)
        bands = ops.matmul(weight, _diagonals(size, width)).reshape(channels, size * width, width)
        wide = x.astype(ms.float32).transpose(3, 0, 1, 2)
        zeros = ops.zeros((channels, n, padding, width), ms.float32)
        wide = ops.concat((zeros, wide, zeros), 2).reshape(channels, n, -1)
        rows = [
            wide[:, :, i * width : (i + height) * width].reshape(channels, n * height, 1, width)
            for i in range(size)
        ]
        rows = ops.concat(rows, 2).reshape(channels, n * height, size * width)
        y = self.product(rows, bands).reshape(channels, n, height, width)
        return y.transpose(1, 2, 3, 0).astype(x.dtype)


@constexpr
def _diagonals(size: int, width: int) -> Tensor:
    """Where a band matrix has each of a row's ``size`` weights: (size, width * width), 0 or 1."""
    column = np.arange(width)
    offset = np.arange(size)[:, None, None] - size // 2
    diagonals = column[:, None] - column == offset
    return Tensor(diagonals.reshape(size, -1).astype(np.float32))
