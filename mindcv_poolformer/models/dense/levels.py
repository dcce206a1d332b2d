"""What a detector's heads give on each level of a pyramid, (N, C, H, W)."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import Tensor, ops

from ..parts.layout import move_channels_last
from .anchors import Size

Levels = Sequence[Tensor]


def sizes_of(levels: Levels) -> tuple[Size, ...]:
    """Give height and width of maps (N, C, H, W)."""
    return tuple([(x.shape[2], x.shape[3]) for x in levels])


def all_finite(maps: Levels) -> Tensor:
    """Tell, as a scalar bool, whether maps of any shapes hold neither Inf nor NaN."""
    sums = tuple([x.astype(ms.float32).sum() for x in maps])
    return ops.isfinite(ops.stack(sums)).all()


def by_anchor(x: Tensor, numbers: int) -> Tensor:
    """Lay a level's map (N, anchors * numbers, h, w) as (N, h * w * anchors, numbers)."""
    return move_channels_last(x).reshape(x.shape[0], -1, numbers)
