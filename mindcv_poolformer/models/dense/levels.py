"""What a detector's heads give on each level of a pyramid, (N, C, H, W)."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore import Tensor

from ..parts.layout import move_channels_last
from .anchors import Size

Levels = Sequence[Tensor]


def sizes_of(levels: Levels) -> tuple[Size, ...]:
    """Give height and width of maps (N, C, H, W)."""
    return tuple([(x.shape[2], x.shape[3]) for x in levels])


def by_anchor(x: Tensor, numbers: int) -> Tensor:
    """Lay a level's map (N, anchors * numbers, h, w) as (N, h * w * anchors, numbers)."""
    return move_channels_last(x).reshape(x.shape[0], -1, numbers)
