"""What computes on maps (N, H, W, C), which is how a MetaFormer lays them on every device.

Linear layers, attention and norms over channels want them so; the official code has it too.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.ops.primitive import constexpr

from .kernels import channels_last, standardize


def on_channels_last(cell: nn.Cell, x: Tensor) -> Tensor:
    """Call a cell whose maps lie as the device likes them on a map (N, H, W, C)."""
    if channels_last():
        return cell(x)
    return cell(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)


class SampleNorm(nn.Cell):
    """Each sample of a map (N, H, W, C) is normalised, eps 1e-6; a scale, no shift."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = Parameter(Tensor(np.ones(channels, np.float32)))

    def construct(self, x: Tensor) -> Tensor:
        return (standardize(x, 1e-6) * self.gamma).astype(x.dtype)


class ChannelNorm(nn.Cell):
    """Each place of a map (N, H, W, C) is normalised over its channels, eps 1e-6; no shift."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = Parameter(Tensor(np.ones(channels, np.float32)))
        self.native = ops.LayerNorm(-1, -1, 1e-6)

    def construct(self, x: Tensor) -> Tensor:
        if not channels_last():
            gamma = self.gamma.astype(x.dtype)
            return self.native(x, gamma, ops.zeros_like(gamma))[0]
        part = 1.0 / x.shape[-1]
        wide = x.astype(ms.float32)
        centred = wide - wide.sum(-1, keepdims=True) * part
        variance = (centred * centred).sum(-1, keepdims=True) * part
        return (centred * ops.rsqrt(variance + 1e-6) * self.gamma).astype(x.dtype)


class DepthwiseConv(nn.Conv2d):
    """A convolution of each channel alone, stride 1, without bias; the kernel's size is odd.

    On the CPU a row of the result is one product: the rows that it sees, end to end, times a band
    matrix of the weights. MindSpore 2.10's own convolution takes 6 to 14 times as long there.
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
        n, height, width, channels = x.shape
        size, padding = self.kernel_size[0], self.padding
        bands = ops.matmul(
            self.weight.astype(x.dtype).reshape(channels * size, size),
            _diagonals(size, width).astype(x.dtype),
        )
        zeros = ops.zeros((channels, n, padding, width), x.dtype)
        x = ops.concat((zeros, x.transpose(3, 0, 1, 2), zeros), 2).reshape(channels, n, -1)
        rows = [
            x[:, :, i * width : (i + height) * width].reshape(channels, n * height, 1, width)
            for i in range(size)
        ]
        x = ops.concat(rows, 2).reshape(channels, n * height, size * width)
        y = self.product(x, bands.reshape(channels, size * width, width))
        return y.reshape(channels, n, height, width).transpose(1, 2, 3, 0)


@constexpr
def _diagonals(size: int, width: int) -> Tensor:
    """Where a band matrix has each of a row's ``size`` weights: (size, width * width), 0 or 1."""
    column = np.arange(width)
    offset = np.arange(size)[:, None, None] - size // 2
    diagonals = column[:, None] - column == offset
    return Tensor(diagonals.reshape(size, -1).astype(np.float32))
