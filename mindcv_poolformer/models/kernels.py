"""How the Cells compute on which device; what they compute is told in ``layers.py``.

Feature maps between the Cells lie as the device likes it. Ascend: (N, C, H, W), and MindSpore's own
convolution, pooling, GroupNorm and GELU. CPU: (N, H, W, C), where a 1x1 convolution is one matrix
product, and chains of elementwise operators that graph kernels fuse (see ``runtime/cpu.py``).
MindSpore 2.10's own operators are slow there: its oneDNN takes a reference kernel for every larger
convolution under AVX-512 and transposes around every 1x1 one, and its erf is scalar.

:func:`from_channels_first` and :func:`to_channels_first` stand where a map comes from or goes to
the outside. Both devices hold the same parameters, in the official shapes.
"""

from __future__ import annotations

import math
import re

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops.primitive import constexpr

from .fusing_gelu import FusingGELU


@constexpr
def channels_last() -> bool:
    """Whether maps are (N, H, W, C) on the device that this process computes on."""
    return ms.get_context("device_target") == "CPU"


def from_channels_first(x: Tensor) -> Tensor:
    """Lay a map (N, C, H, W) as the device likes it."""
    return x.transpose(0, 2, 3, 1) if channels_last() else x


def to_channels_first(x: Tensor) -> Tensor:
    """Lay a map (N, C, H, W) again, whatever the device likes."""
    return x.transpose(0, 3, 1, 2) if channels_last() else x


def per_channel(vector: Tensor) -> Tensor:
    """Shape a vector (C,) so that it meets the channels of a map."""
    return vector if channels_last() else vector.reshape(-1, 1, 1)


def spatial_mean(x: Tensor) -> Tensor:
    """Average a map over height and width: (N, C)."""
    return x.mean((1, 2)) if channels_last() else x.mean((2, 3))


def standardize(x: Tensor, eps: float) -> Tensor:
    """Subtract each sample's mean from a map and divide by its deviation, in float32."""
    centred, rstd = center(x, eps)
    return centred * rstd


def center(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Give a map less each sample's mean, and 1 / sqrt(variance + eps), (N, 1, …), in float32.

    From the centred sample: E[x^2] - E[x]^2 would cancel where the mean is large.
    """
    wide = x.astype(ms.float32)
    part = 1.0 / math.prod(x.shape[1:])
    centred = wide - _sample_sum(wide) * part
    variance = _sample_sum(centred * centred) * part
    return centred, ops.rsqrt(variance + eps)


def _sample_sum(x: Tensor) -> Tensor:
    """Sum each sample of (N, C) or (N, H, W, C): (N, 1) or (N, 1, 1, 1).

    Channels first, then the places with a product: one sum over a large map would round eight
    times as much, and two would be fused into it.
    """
    if x.ndim == 2:
        return x.sum(1, keepdims=True)
    places = x.shape[1] * x.shape[2]
    total = ops.MatMul()(x.sum(-1).reshape(-1, places), _ones(places))
    return total.reshape(-1, 1, 1, 1)


@constexpr
def _ones(count: int) -> Tensor:
    return Tensor(np.ones((count, 1), np.float32))


class GroupNorm(nn.GroupNorm):
    """GroupNorm with one group: each sample is normalised over (C, H, W), eps 1e-5."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels, eps=1e-5)

    def construct(self, x: Tensor) -> Tensor:
        if channels_last():
            return (standardize(x, self.eps) * self.gamma + self.beta).astype(x.dtype)
        return super().construct(x)


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
        weight = weight.transpose(0, 2, 3, 1)
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


class GELU(nn.Cell):
    """The exact GELU, x times the normal distribution's cumulative probability at x."""

    def __init__(self) -> None:
        super().__init__()
        self.native = nn.GELU(approximate=False)
        self.fusing = FusingGELU()

    def construct(self, x: Tensor) -> Tensor:
        if not channels_last():
            return self.native(x)
        return self.fusing(x) if _fuses() else self.native(x.astype(ms.float32)).astype(x.dtype)


@constexpr
def _fuses() -> bool:
    """Whether elementwise chains become graph kernels: in graph mode, if runtime/cpu.py says so."""
    return ms.get_context("enable_graph_kernel") and ms.get_context("mode") == ms.GRAPH_MODE


@constexpr
def has_flash_attention() -> bool:
    """Whether ops.flash_attention_score has the device: Ascend Atlas A2 and A3, not the first 910.

    By name: Ascend910B1 to B4 and Ascend910_93..; the first ones end with a letter.
    """
    if ms.get_context("device_target") != "Ascend":
        return False
    return re.match(r"Ascend910(B\d|_93)", ms.hal.get_device_name()) is not None
