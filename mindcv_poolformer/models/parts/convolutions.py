"""Convolutions: 1x1, 3x3, strided, and of each channel alone."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops.primitive import constexpr

from .layout import channels_last, move_channels_last


def as_product(weight: np.ndarray) -> np.ndarray:
    """Lay a convolution's weight (O, I, k, k) out as the device multiplies by it quickest.

    On the CPU that is a matrix (k k I, O). Into one (O, k k I) a Parameter of the official shape
    is copied at each call. Both are right for :class:`PointwiseConv` and :class:`StridedConv`.
    """
    if channels_last():
        return weight.transpose(2, 3, 1, 0).reshape(-1, len(weight))
    return weight


def as_convolution(conv: nn.Conv2d) -> np.ndarray:
    """Give the weight (O, I, k, k) of a convolution, also where it comes from as_product."""
    weight, size = conv.weight.asnumpy(), conv.kernel_size[0]
    if weight.ndim == 4:
        return weight
    return weight.reshape(size, size, -1, conv.out_channels).transpose(3, 2, 0, 1)


class _Affine(nn.Cell):
    """x W^T + b for x (M, I), W (O, I) and b (O,).

    The gradient of b is a matrix product too: as a sum over rows it would fuse with what comes
    before it into a kernel several times slower than both.
    """

    def construct(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return ops.MatMul(transpose_b=True)(x, weight) + bias

    def bprop(
        self, x: Tensor, weight: Tensor, bias: Tensor, out: Tensor, dout: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        ones = ops.ones((1, x.shape[0]), x.dtype)
        return (  # as what they are the gradients of: AMP's "auto" makes products float16
            ops.MatMul()(dout, weight).astype(x.dtype),
            ops.MatMul(transpose_a=True)(dout, x).astype(weight.dtype),
            ops.MatMul()(ones, dout).reshape(-1).astype(bias.dtype),
        )


def _multiply(conv: nn.Conv2d, patches: Tensor) -> Tensor:
    """Give (M, O): patches (M, k k I) times the weight of a convolution, and its bias."""
    weight, bias = conv.weight.astype(patches.dtype), conv.bias.astype(patches.dtype)
    if weight.ndim == 2:  # from as_product
        return ops.MatMul()(patches, weight) + bias
    if conv.kernel_size != (1, 1):
        weight = move_channels_last(weight)
    return conv.affine(patches, weight.reshape(conv.out_channels, -1), bias)


class PointwiseConv(nn.Conv2d):
    """A 1x1 convolution with bias."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(in_channels, channels, 1, has_bias=True)
        self.affine = _Affine()

    def construct(self, x: Tensor) -> Tensor:
        if channels_last():
            n, height, width, channels = x.shape
            y = _multiply(self, x.reshape(-1, channels))
            return y.reshape(n, height, width, self.out_channels)
        return super().construct(x)


class SpatialConv(nn.Conv2d):
    """A 3x3 convolution, stride 1, that keeps height and width: beyond the border there are zeros.

    On the CPU one product of what each place sees, its nine neighbours end to end.
    """

    def __init__(self, in_channels: int, channels: int, has_bias: bool = True) -> None:
        super().__init__(in_channels, channels, 3, pad_mode="pad", padding=1, has_bias=has_bias)
        self.affine = _Affine() if has_bias else ops.MatMul(transpose_b=True)

    def construct(self, x: Tensor) -> Tensor:
        if not channels_last():
            return super().construct(x)
        n, height, width, channels = x.shape
        row, column = (n, 1, width, channels), (n, height + 2, 1, channels)
        x = ops.concat((ops.zeros(row, x.dtype), x, ops.zeros(row, x.dtype)), 1)
        x = ops.concat((ops.zeros(column, x.dtype), x, ops.zeros(column, x.dtype)), 2)
        seen = []
        for i in range(3):
            for j in range(3):
                seen.append(x[:, i : i + height, j : j + width])
        patches = ops.concat(seen, 3).reshape(-1, 9 * channels)
        if self.has_bias:
            y = _multiply(self, patches)
        else:
            weight = move_channels_last(self.weight.astype(x.dtype))
            y = self.affine(patches, weight.reshape(self.out_channels, -1))
        return y.reshape(n, height, width, self.out_channels)


class StridedConv(nn.Conv2d):
    """A convolution with bias whose patches overlap: stride < kernel size <= 2 stride."""

    def __init__(
        self, in_channels: int, channels: int, kernel_size: int, stride: int, padding: int
    ) -> None:
        super().__init__(in_channels, channels, kernel_size, stride, "pad", padding, has_bias=True)
        self.affine = _Affine()

    def construct(self, x: Tensor) -> Tensor:
        if channels_last():
            size, stride, padding = self.kernel_size[0], self.stride[0], self.padding
            n, height, width, channels = x.shape
            x = _windows(x.reshape(n, height, width * channels), size, stride, padding)
            height = x.shape[1]
            x = _windows(x.reshape(-1, width, channels), size, stride, padding)
            width = x.shape[1]
            x = x.reshape(-1, height, size, width, size * channels).transpose(0, 1, 3, 2, 4)
            y = _multiply(self, x.reshape(-1, size * size * channels))
            return y.reshape(n, height, width, self.out_channels)
        return super().construct(x)


def _windows(x: Tensor, size: int, stride: int, padding: int) -> Tensor:
    """Give the windows along the middle axis of (N, L, R): (N, windows, size * R).

    Cut out of blocks of ``stride`` rows: a window is one block and the beginning of the next.
    """
    n, length, row = x.shape
    count = (length + 2 * padding - size) // stride + 1
    missing = (count + 1) * stride - padding - length
    x = ops.concat((ops.zeros((n, padding, row), x.dtype), x), 1)
    if missing > 0:
        x = ops.concat((x, ops.zeros((n, missing, row), x.dtype)), 1)
    elif missing < 0:
        x = x[:, :missing]
    blocks = x.reshape(n, count + 1, stride * row)
    rest = blocks[:, :, : (size - stride) * row]
    return ops.concat((blocks[:, :-1], rest[:, 1:]), 2)


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
