"""Activations: the exact GELU of a PoolFormer, and those of a MetaFormer."""

from __future__ import annotations

import math

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, mint, nn, ops
from mindspore.ops.primitive import constexpr

from .ascend import has_gelu
from .layout import channels_last

# Abramowitz and Stegun's 7.1.28: erfc(z) = 1 / (1 + a1 z + ... + a6 z^6)^16, off by 3e-7 at most.
ERFC = (0.0705230784, 0.0422820123, 0.0092705272, 0.0001520143, 0.0002765672, 0.0000430638)
NORMAL_TAIL = tuple(a / math.sqrt(2) ** (power + 1) for power, a in enumerate(ERFC))  # z = x / √2


class GELU(nn.Cell):
    """The exact GELU, x times the normal distribution's cumulative probability at x.

    On Ascend it is one operator each way, in float16 too (aclnnGelu). Elsewhere, and in graphs that
    other devices load, it is computed in float32.

    Args:
        portable: leave that operator out.
    """

    def __init__(self, portable: bool = False) -> None:
        super().__init__()
        self.portable = portable
        self.erf = ErfGELU()
        self.fusing = FusingGELU()

    def construct(self, x: Tensor) -> Tensor:
        if not self.portable and has_gelu():
            return mint.nn.functional.gelu(x)
        if channels_last() and _fuses():
            return self.fusing(x)
        return self.erf(x)


@constexpr
def _fuses() -> bool:
    """Whether elementwise chains become graph kernels: in graph mode, if runtime/cpu.py says so."""
    return ms.get_context("enable_graph_kernel") and ms.get_context("mode") == ms.GRAPH_MODE


class ErfGELU(nn.Cell):
    """x (1 + erf(x / √2)) / 2, computed in float32; the gradient is computed anew from x."""

    def construct(self, x: Tensor) -> Tensor:
        wide = x.astype(ms.float32)
        return (wide * _normal(wide)).astype(x.dtype)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        wide = x.astype(ms.float32)
        density = ops.exp(-0.5 * wide * wide) * (1 / math.sqrt(2 * math.pi))
        slope = _normal(wide) + wide * density
        return ((dout.astype(ms.float32) * slope).astype(x.dtype),)


def _normal(x: Tensor) -> Tensor:
    """Give the probability that a normal variable is below ``x``."""
    return 0.5 + 0.5 * ops.erf(x * math.sqrt(0.5))


class FusingGELU(nn.Cell):
    """x times the normal distribution's cumulative probability at x, computed in float32.

    The gradient is computed anew from x: cheaper than to keep what the forward pass computed.
    """

    def construct(self, x: Tensor) -> Tensor:
        wide = x.astype(ms.float32)  # in here: AMP casts what a Cell is given
        size = ops.abs(wide)
        return (0.5 * (wide + size) - size * _normal_tail(size)).astype(x.dtype)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        wide = x.astype(ms.float32)
        size = ops.abs(-wide)  # for abs(wide) the compiler would keep the tail of the forward pass
        sign = wide * (1.0 / (size + 1e-30))  # Sign does not fuse
        density = _exp_of_minus(0.5 * size * size) * (1 / math.sqrt(2 * math.pi))
        slope = 0.5 + sign * (0.5 - _normal_tail(size)) + wide * density
        return ((dout.astype(ms.float32) * slope).astype(x.dtype),)


def _normal_tail(size: Tensor) -> Tensor:
    """Give the probability that a normal variable exceeds ``size`` >= 0."""
    root = 0.0
    for a in reversed(NORMAL_TAIL):
        root = (root + a) * size
    root = root + 1.0
    for _ in range(4):
        root = root * root
    return 0.5 * (1.0 / root)


def _exp_of_minus(x: Tensor) -> Tensor:
    """Give exp(-x) for x >= 0, off by 6e-6 of itself at most where x < 15.

    exp(-x / 32) is seven terms of its series, and that is squared five times. Beyond 50, where
    2e-22 is as good as zero, the series would end.
    """
    x = ops.minimum(x, 50.0) * (-1 / 32)
    power = 1 / 6 + x * (1 / 24 + x * (1 / 120 + x * (1 / 720 + x * (1 / 5040))))
    power = 1.0 + x * (1.0 + x * (0.5 + x * power))
    for _ in range(5):
        power = power * power
    return power


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
