"""Anchors: the boxes that a detector's places start from.

As MMDetection 2.19 lays them: float32, not rounded, each place's around its corner
(x stride, y stride), not around its middle. Boxes are (x1, y1, x2, y2) in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops.primitive import constexpr

Size = tuple[int, int]  # height, width


class Anchors(nn.Cell):
    """The anchors of all levels, as constants of a graph.

    A place has one for each ratio and, within a ratio, for each scale. They lie level by level, and
    within a level row by row.

    Args:
        strides: of each level, in pixels.
        ratios: of height to width.
        scales: edge of a square anchor, in strides.
    """

    def __init__(
        self, strides: Sequence[int], ratios: Sequence[float], scales: Sequence[float]
    ) -> None:
        super().__init__()
        self.strides, self.ratios, self.scales = tuple(strides), tuple(ratios), tuple(scales)
        self.per_place = len(ratios) * len(scales)

    def construct(self, sizes: tuple[Size, ...]) -> Tensor:
        """Give the anchors (A, 4), float32, of maps of these heights and widths."""
        return _boxes(self.strides, self.ratios, self.scales, sizes)

    def within(self, sizes: tuple[Size, ...], shapes: Tensor) -> Tensor:
        """Whether anchors are of places on an image: bool, (N, A).

        Those on the zeros that fill a batch up take no part in training.

        Args:
            sizes: height and width of each level's map.
            shapes: (N, 2), height and width in pixels of each image as it is padded alone.
        """
        corners = _corners(self.strides, self.per_place, sizes)
        ends = shapes.astype(ms.float32)
        return ops.logical_and(corners[:, 0] < ends[:, 1:], corners[:, 1] < ends[:, :1])

    def counts(self, sizes: tuple[Size, ...]) -> list[int]:
        """Tell how many anchors each level has."""
        return [height * width * self.per_place for height, width in sizes]


@constexpr
def _boxes(
    strides: tuple[int, ...],
    ratios: tuple[float, ...],
    scales: tuple[float, ...],
    sizes: tuple[Size, ...],
) -> Tensor:
    levels = []
    for stride, size in zip(strides, sizes, strict=True):
        around = boxes_around_origin(stride, ratios, scales)
        corners = _level_corners(stride, size)
        levels.append((np.tile(corners, 2)[:, None] + around).reshape(-1, 4))
    return Tensor(np.concatenate(levels))


def boxes_around_origin(
    stride: int, ratios: Sequence[float], scales: Sequence[float]
) -> np.ndarray:
    """Give the anchors of place (0, 0): float32, (ratios * scales, 4)."""
    root = np.sqrt(np.array(ratios, np.float32))[:, None]
    edge = np.array(scales, np.float32)
    width = (np.float32(stride) * (1 / root) * edge).ravel()
    height = (np.float32(stride) * root * edge).ravel()
    return np.stack((-width, -height, width, height), 1) * np.float32(0.5)


@constexpr
def _corners(strides: tuple[int, ...], per_place: int, sizes: tuple[Size, ...]) -> Tensor:
    levels = [_level_corners(stride, size) for stride, size in zip(strides, sizes, strict=True)]
    return Tensor(np.concatenate(levels).repeat(per_place, 0))


def _level_corners(stride: int, size: Size) -> np.ndarray:
    """Give x and y of each place's corner in pixels, row by row: (h w, 2)."""
    y, x = np.mgrid[: size[0], : size[1]] * stride
    return np.stack((x, y), -1).reshape(-1, 2).astype(np.float32)
