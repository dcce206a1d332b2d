"""RoIAlign: a map's values within boxes, brought to one size.

He et al., "Mask R-CNN", arXiv 1703.06870, section 3, as MMCV 1.3.14 computes it with
``aligned=True`` and ``sampling_ratio=0``: each bin of a box is the mean of as many points as it is
cells high, times cells wide, both rounded up. ``ops.ROIAlign`` knows a fixed number of points.

The points of a box lie on a grid and bilinear weights are a product of one along y and one along x,
so that all is two matrix products: W_y map W_x^T.
"""

from __future__ import annotations

import math

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops
from mindspore.ops.primitive import constexpr

from ..parts.layout import lay_channels_last, lay_for_device

FINEST = 56.0  # pixels: see level_of
MOST = 2**26  # numbers in the largest array that is there at once: 256 MB in float32


def roi_align(x: Tensor, boxes: Tensor, scale: float, size: int, reach: float = 1.0) -> Tensor:
    """Give the values of a map within boxes, (N n, C, size, size) as the device likes maps.

    There is a gradient for the map alone. A box without an area gives zeros.

    Args:
        x: (N, C, H, W) as the device likes it.
        boxes: (N, n, 4), those of each image, (x1, y1, x2, y2) in the image's pixels.
        scale: cells of the map per pixel, 1 / stride.
        size: bins along each axis.
        reach: how many times as long as the map a box may be, 1 for those within the image.
    """
    x = lay_channels_last(x)
    images, height, width, channels = x.shape
    boxes = ops.stop_gradient(boxes.astype(ms.float32)) * scale - 0.5
    parts = _parts(
        boxes.shape[1],
        images * size * width * channels,  # W_y map
        images * size * _points(size, height, reach) * height,
        images * size * _points(size, width, reach) * width,
    )
    found = [_aligned(x, boxes[:, begin:end], size, reach) for begin, end in parts]
    found = found[0] if len(found) == 1 else ops.concat(found, 1)
    return lay_for_device(found.reshape(-1, size, size, channels))


def _aligned(x: Tensor, boxes: Tensor, size: int, reach: float) -> Tensor:
    """Give what :func:`roi_align` does as (N, n, size, size, C), all boxes at once.

    Args:
        x: (N, H, W, C).
        boxes: (N, n, 4) in cells, from the middle of the first one.
        size: bins along each axis.
        reach: how many times as long as the map a box may be.
    """
    images, height, width, channels = x.shape
    boxes = boxes.reshape(-1, 4)
    rows = axis_weights(boxes[:, 1], boxes[:, 3], size, height, reach).astype(x.dtype)
    columns = axis_weights(boxes[:, 0], boxes[:, 2], size, width, reach).astype(x.dtype)
    flat = x.reshape(images, height, width * channels)
    y = ops.BatchMatMul()(rows.reshape(images, -1, height), flat)
    y = y.reshape(-1, size, width, channels).transpose(0, 2, 1, 3)
    y = ops.BatchMatMul()(columns, y.reshape(-1, width, size * channels))
    y = y.reshape(-1, size, size, channels).transpose(0, 2, 1, 3)
    return y.reshape(images, -1, size, size, channels)


@constexpr
def _parts(count: int, *numbers: int) -> tuple[tuple[int, int], ...]:
    """Part so many boxes, with arrays of so many numbers each, into as many as fit at once."""
    at_once = max(1, MOST // max(numbers))
    return tuple((begin, min(begin + at_once, count)) for begin in range(0, count, at_once))


@constexpr
def _points(bins: int, length: int, reach: float) -> int:
    """Give the most points that a bin has along an axis, of those that :func:`axis_weights` weighs.

    It has arrays (n, bins, points, length), the largest there are where channels are few.
    """
    return math.ceil(reach * length / bins) + 1


def crop_masks(masks: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Give what of an object's mask lies in its box, 0 or 1, float32 (n, size, size).

    Args:
        masks: (n, H, W), 0 or 1, one for each box.
        boxes: (n, 4), pixels; within the image.
        size: edge of the result.
    """
    _, height, width = masks.shape
    boxes = boxes.astype(ms.float32) - 0.5
    found = []
    parts = _parts(
        boxes.shape[0],
        4 * height * width,  # the masks, with room for copies
        size * _points(size, height, 1.0) * height,
        size * _points(size, width, 1.0) * width,
    )
    for begin, end in parts:
        part, mask = boxes[begin:end], masks[begin:end].astype(ms.float32)
        rows = axis_weights(part[:, 1], part[:, 3], size, height)
        columns = axis_weights(part[:, 0], part[:, 2], size, width)
        found.append(ops.BatchMatMul(transpose_b=True)(ops.BatchMatMul()(rows, mask), columns))
    return (ops.concat(found, 0) >= 0.5).astype(ms.float32)


def axis_weights(begin: Tensor, end: Tensor, bins: int, length: int, reach: float = 1.0) -> Tensor:
    """Give how much each cell along an axis counts in each bin of each box, (n, bins, length).

    Args:
        begin: (n,), of the boxes in cells, from the middle of the first one.
        end: (n,).
        bins: of each box.
        length: cells.
        reach: how many times that long a box may be.
    """
    step = ((end - begin) / bins).reshape(-1, 1, 1)
    count = ops.ceil(step)
    number, point, cell = _places(bins, _points(bins, length, reach), length)
    at = begin.reshape(-1, 1, 1) + (number + (point + 0.5) / ops.maximum(count, 1.0)) * step
    real = (point < count).astype(ms.float32)
    real = real * (at >= -1.0).astype(ms.float32) * (at <= length).astype(ms.float32)
    # Beyond the middle of the first and last cell these count as a whole.
    at = ops.minimum(ops.relu(at), length - 1.0).expand_dims(-1)
    weights = ops.relu(1.0 - ops.abs(at - cell)) * real.expand_dims(-1)
    return weights.sum(2) / ops.maximum(count, 1.0)


@constexpr
def _places(bins: int, points: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Give the numbers of bins, of points in a bin and of cells, as axes 1, 2 and 3."""
    number = np.arange(bins, dtype=np.float32)[None, :, None]
    point = np.arange(points, dtype=np.float32)[None, None]
    cell = np.arange(length, dtype=np.float32)[None, None, None]
    return Tensor(number), Tensor(point), Tensor(cell)


def level_of(boxes: Tensor, levels: int, finest: float = FINEST) -> Tensor:
    """Tell on which level of a pyramid a box is looked at, int32 (...).

    Lin et al., arXiv 1612.03144, equation 1: a box of twice the edge on the next one.

    Args:
        boxes: (..., 4), pixels.
        levels: how many there are.
        finest: the square root of the area of the boxes from which on, doubled, they leave level 0.
    """
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    size = ops.sqrt(area) / finest + 1e-6
    # Not as a logarithm, which would round: boxes of exactly 112 pixels are common.
    level = ops.zeros_like(size).astype(ms.int32)
    for doublings in range(1, levels):
        level = level + (size >= 2.0**doublings).astype(ms.int32)
    return level
