"""Boxes as differences from anchors, or from proposals, and back.

Girshick et al., arXiv 1311.2524, appendix C, as MMDetection 2.19 computes it. Boxes are
(x1, y1, x2, y2) in pixels, width x2 - x1. All in float32.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import mindspore as ms
from mindspore import Tensor, ops

# Boxes grow and shrink by this factor at most.
LARGEST_STRETCH = 1000 / 16


class Deviations(NamedTuple):
    """What differences are divided by, so that a network learns numbers of one size.

    Args:
        centre: of those in x and y.
        size: of those in width and height.
    """

    centre: float = 1.0
    size: float = 1.0


UNIT = Deviations()
OF_PROPOSALS = Deviations(0.1, 0.2)


def encode(anchors: Tensor, boxes: Tensor, deviations: Deviations = UNIT) -> Tensor:
    """Give the differences (dx, dy, dw, dh) of boxes from anchors, (..., 4).

    Args:
        anchors: (..., 4).
        boxes: (..., 4), of the same number; both of positive width and height.
        deviations: what to divide the differences by.
    """
    before, after = centred(anchors), centred(boxes)
    centres = (after[0] - before[0]) / before[1] / deviations.centre
    sizes = ops.log(after[1] / before[1]) / deviations.size
    return ops.concat((centres, sizes), -1)


def decode(anchors: Tensor, deltas: Tensor, deviations: Deviations = UNIT) -> Tensor:
    """Give the boxes that differ from anchors by (dx, dy, dw, dh), (..., 4).

    Args:
        anchors: (..., 4).
        deltas: (..., 4), of the same number of dimensions.
        deviations: what the differences were divided by.
    """
    centre, size = centred(anchors)
    deltas = deltas.astype(ms.float32)
    most = math.log(LARGEST_STRETCH)
    stretch = ops.exp(ops.clamp(deltas[..., 2:] * deviations.size, -most, most))
    centre, half = centre + size * (deltas[..., :2] * deviations.centre), 0.5 * (size * stretch)
    return ops.concat((centre - half, centre + half), -1)


def centred(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Give centres and sizes of boxes, both (..., 2)."""
    boxes = boxes.astype(ms.float32)
    return (boxes[..., :2] + boxes[..., 2:]) * 0.5, boxes[..., 2:] - boxes[..., :2]


def clip(boxes: Tensor, shapes: Tensor) -> Tensor:
    """Cut off what boxes have outside their image.

    Args:
        boxes: (N, n, 4).
        shapes: (N, 2), height and width of each image in pixels, without padding.
    """
    height, width = shapes[:, None, :1].astype(ms.float32), shapes[:, None, 1:].astype(ms.float32)
    ends = ops.concat((width, height, width, height), -1)
    return ops.minimum(ops.relu(boxes), ends)
