"""The levels of a pyramid side by side on one map, for a head that all of them share.

On the CPU, where a graph's compilation takes longer than its steps for a while, a convolution of
five maps is so compiled once instead of five times. Between two levels lies at least one place of
zeros, as beyond the border of each: a 3x3 convolution sees the same of it.
"""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, ops
from mindspore.ops.primitive import constexpr

from .anchors import Size
from .levels import Levels

Corner = tuple[int, int]


@constexpr
def layout_of(sizes: tuple[Size, ...]) -> tuple[Size, tuple[Corner, ...]]:
    """Give height and width of the map for levels of these sizes, and the corner of each on it.

    The first lies at the top, the others in a row below it.
    """
    corners, left = [(0, 0)], 0
    for _, width in sizes[1:]:
        corners.append((sizes[0][0] + 1, left))
        left += width + 1
    height = sizes[0][0] + (1 + max(h for h, _ in sizes[1:]) if sizes[1:] else 0)
    return (height, max(sizes[0][1], left - 1)), tuple(corners)


@constexpr
def occupied(sizes: tuple[Size, ...]) -> Tensor:
    """Where a level is, 1, and where none is, 0: (1, H, W, 1) float32."""
    (height, width), corners = layout_of(sizes)
    there = np.zeros((1, height, width, 1), np.float32)
    for (y, x), (h, w) in zip(corners, sizes, strict=True):
        there[:, y : y + h, x : x + w] = 1
    return Tensor(there)


def side_by_side(maps: Levels, sizes: tuple[Size, ...]) -> Tensor:
    """Lay maps (N, h, w, C) of these sizes on one (N, H, W, C)."""
    (height, width), _ = layout_of(sizes)
    if len(sizes) == 1:
        return maps[0]
    first, below = sizes[0][0] + 1, []
    for x, (_, w) in zip(maps[1:], sizes[1:]):
        below.append(_filled(x, height - first, w + 1))
    row = ops.concat(below, 2)[:, :, :width]
    return ops.concat((_filled(maps[0], first, width), _filled(row, height - first, width)), 1)


def apart(x: Tensor, sizes: tuple[Size, ...]) -> list[Tensor]:
    """The inverse of :func:`side_by_side`."""
    _, corners = layout_of(sizes)
    return [x[:, top : top + h, left : left + w] for (top, left), (h, w) in zip(corners, sizes)]


def _filled(x: Tensor, height: int, width: int) -> Tensor:
    """Fill a map up with zeros, below and at its right."""
    n, h, w, channels = x.shape
    if height > h:
        x = ops.concat((x, ops.zeros((n, height - h, w, channels), x.dtype)), 1)
    if width > w:
        x = ops.concat((x, ops.zeros((n, height, width - w, channels), x.dtype)), 2)
    return x
