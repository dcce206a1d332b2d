"""Batch norm: each channel of a map is normalised over the places of all images of a batch."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from .layout import channels_last


class BatchNorm(nn.BatchNorm2d):
    """Batch norm, eps 1e-5, whose running statistics move a tenth of the way at each step.

    Composed of products and elementwise operators, in float32, on the CPU, where MindSpore's own
    takes maps (N, C, H, W) alone, and where the statistics are those of several ranks, which
    MindSpore's own synchronises on Ascend alone.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-5, momentum=0.9)
        self.world_size = 1

    def synchronize(self, world_size: int) -> None:
        """Take the statistics of all ranks' images in training."""
        self.world_size = world_size
        if world_size > 1:
            self.all_reduce = ops.AllReduce()

    def construct(self, x: Tensor) -> Tensor:
        if not channels_last() and self.world_size == 1:
            return super().construct(x)
        wide = x.astype(ms.float32)
        if self.training:
            count = self.world_size * x.size // x.shape[3 if channels_last() else 1]
            mean = self._sum(wide) / count
            centred = wide - _spread(mean)
            variance = self._sum(centred * centred) / count
            # The running variance is the unbiased one, as PyTorch's and that of MindSpore's own.
            unbiased = variance * (count / max(count - 1, 1))
            _move(self.moving_mean, mean, self.momentum)
            _move(self.moving_variance, unbiased, self.momentum)
        else:
            centred, variance = wide - _spread(self.moving_mean), self.moving_variance
        factor = ops.rsqrt(variance + self.eps) * self.gamma
        return (centred * _spread(factor) + _spread(self.beta)).astype(x.dtype)

    def _sum(self, x: Tensor) -> Tensor:
        """Sum a map over all but its channels, and over the ranks: (C,)."""
        if channels_last():  # with a product
            rows = x.reshape(-1, x.shape[-1])
            total = ops.MatMul()(ops.ones((1, rows.shape[0]), x.dtype), rows).reshape(-1)
        else:
            total = x.sum((0, 2, 3))
        return self.all_reduce(total) if self.world_size > 1 else total


def _spread(x: Tensor) -> Tensor:
    """Lay (C,) so that it meets the channels of a map."""
    return x if channels_last() else x.reshape(1, -1, 1, 1)


def _move(running: ms.Parameter, value: Tensor, part: float) -> None:
    ops.assign(running, running * (1.0 - part) + ops.stop_gradient(value) * part)
