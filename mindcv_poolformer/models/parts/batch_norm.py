"""Batch norm: each channel of a map is normalised over the places of all images of a batch."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from .layout import channels_last


class BatchNorm(nn.BatchNorm2d):
    """Batch norm, eps 1e-5, whose running statistics move a tenth of the way at each step.

    On the CPU composed of products and elementwise operators, in float32: MindSpore's own takes
    maps (N, C, H, W) alone there.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-5, momentum=0.9)

    def construct(self, x: Tensor) -> Tensor:
        if not channels_last():
            return super().construct(x)
        wide = x.astype(ms.float32)
        if self.training:
            count = x.shape[0] * x.shape[1] * x.shape[2]
            mean = _places_sum(wide) / count
            centred = wide - mean
            variance = _places_sum(centred * centred) / count
            # The running variance is the unbiased one, as PyTorch's and that of MindSpore's own.
            unbiased = variance * (count / max(count - 1, 1))
            _move(self.moving_mean, mean, self.momentum)
            _move(self.moving_variance, unbiased, self.momentum)
        else:
            centred, variance = wide - self.moving_mean, self.moving_variance
        normed = centred * (ops.rsqrt(variance + self.eps) * self.gamma) + self.beta
        return normed.astype(x.dtype)


def _places_sum(x: Tensor) -> Tensor:
    """Sum a map (N, H, W, C) over all but its channels, with a product: (C,)."""
    rows = x.reshape(-1, x.shape[-1])
    return ops.MatMul()(ops.ones((1, rows.shape[0]), x.dtype), rows).reshape(-1)


def _move(running: ms.Parameter, value: Tensor, part: float) -> None:
    ops.assign(running, running * (1.0 - part) + ops.stop_gradient(value) * part)
