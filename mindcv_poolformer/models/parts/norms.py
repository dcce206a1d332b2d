"""Norms over a sample or over channels, their statistics in float32."""

from __future__ import annotations

import math

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.ops.primitive import constexpr

from .layout import channels_last

NORM_EPS = 1e-6


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
    """Sum each sample of (N, C) or of a map: (N, 1) or (N, 1, 1, 1).

    On the CPU channels first, then the places with a product: one sum over a large map would round
    eight times as much, and two would be fused into it. An Ascend 910 multiplies in float16.
    """
    if x.ndim == 2:
        return x.sum(1, keepdims=True)
    if not channels_last():
        return x.sum((1, 2, 3), keepdims=True)
    places = x.shape[1] * x.shape[2]
    total = ops.MatMul()(x.sum(-1).reshape(-1, places), _ones(places))
    return total.reshape(-1, 1, 1, 1)


@constexpr
def _ones(count: int) -> Tensor:
    return Tensor(np.ones((count, 1), np.float32))


def standardize_along(x: Tensor, axis: int, eps: float) -> Tensor:
    """Give (x - mean) / sqrt(variance + eps) over one axis, in float32."""
    part = 1.0 / x.shape[axis]
    wide = x.astype(ms.float32)
    centred = wide - wide.sum(axis, keepdims=True) * part
    variance = (centred * centred).sum(axis, keepdims=True) * part
    return centred * ops.rsqrt(variance + eps)


def standardize_channels(x: Tensor, gamma: Tensor | None = None) -> Tensor:
    """Give (x - mean) / sqrt(variance + 1e-6) over the last axis, times ``gamma`` (C,)."""
    if not channels_last():
        scale = ops.ones(x.shape[-1:], x.dtype) if gamma is None else gamma.astype(x.dtype)
        return ops.LayerNorm(-1, -1, NORM_EPS)(x, scale, ops.zeros_like(scale))[0]
    normed = standardize_along(x, -1, NORM_EPS)
    return (normed if gamma is None else normed * gamma).astype(x.dtype)


class GroupNorm(nn.GroupNorm):
    """GroupNorm with one group: each sample is normalised over (C, H, W), eps 1e-5."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels, eps=1e-5)

    def construct(self, x: Tensor) -> Tensor:
        if channels_last():
            return (standardize(x, self.eps) * self.gamma + self.beta).astype(x.dtype)
        return super().construct(x)


class LayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of (N, C), eps 1e-6."""

    def __init__(self, channels: int) -> None:
        super().__init__((channels,), epsilon=1e-6)


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
