"""Non-maximum suppression: of boxes that overlap too much the one with the best score stays.

Exact, and of any number of boxes. Boxes are
(x1, y1, x2, y2), width x2 - x1.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops
from mindspore.ops.primitive import constexpr

from .assignment import iou
from .selection import rows_of_each, top

BLOCK = 2864  # as many as ops.NMSWithMask takes on Ascend


def survivors(boxes: Tensor, threshold: float) -> Tensor:
    """Tell which boxes have no better one that stays and overlaps them by more: bool, (n,).

    Args:
        boxes: (n, 4) of one image, the best first.
        threshold: the IoU that is still allowed.
    """
    boxes = boxes.astype(ms.float32)
    kept = [_within_block(boxes[:BLOCK], threshold)]
    for begin in range(BLOCK, boxes.shape[0], BLOCK):
        block = boxes[begin : begin + BLOCK]
        alive = ops.ones((block.shape[0],), ms.float32)
        for number, stays in enumerate(kept):
            before = boxes[number * BLOCK : (number + 1) * BLOCK]
            close = (iou(before[None], block[None])[0] > threshold).astype(ms.float32)
            alive = alive * (1.0 - ops.ReduceMax()(close * stays.expand_dims(1), 0))
        # What an earlier block suppresses becomes a point, which overlaps nothing.
        block = block * alive.expand_dims(1)
        kept.append(alive * _within_block(block, threshold))
    return ops.concat(kept) > 0


def _within_block(boxes: Tensor, threshold: float) -> Tensor:
    _, _, stays = ops.NMSWithMask(threshold)(ops.concat((boxes, _falling(boxes.shape[0])), 1))
    return stays.astype(ms.float32)


@constexpr
def _falling(count: int) -> Tensor:
    """Give scores of boxes that are in order, (count, 1)."""
    return Tensor(np.arange(count, 0, -1, dtype=np.float32)[:, None])


def apart_by_label(boxes: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Move the boxes of each label to where none of another is, so that one NMS serves for all.

    As MMCV does it, in float32: with label 79 of an image of 1333 pixels the boxes stand at
    100,000, where numbers are 1/128 apart, and that decides close cases as it does officially.

    Args:
        boxes: (n, 4), none of them left of or above 0.
        labels: (n,), from 0 on.
        counts: (n,), False for boxes that are but filling; how far they reach is of no account.
    """
    reach = (boxes * counts.astype(ms.float32).expand_dims(1)).max()
    return boxes + (labels.astype(ms.float32) * (reach + 1.0)).expand_dims(1)


def best_by_label(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    *,
    score_threshold: float,
    iou_threshold: float,
    most: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Give what detections come to: NMS within each label of an image, and the best of the rest.

    Args:
        boxes: (N, n, 4).
        scores: (N, n), 0 to 1.
        labels: (N, n).
        score_threshold: those that do not exceed it are left out.
        iou_threshold: of the NMS.
        most: as many are given of each image, zeros where there are fewer.

    Returns:
        boxes (N, most, 4), scores (N, most) the best first, labels (N, most) int32, and their
        number, (N,) int32.
    """
    scores, order = top(scores, scores.shape[1])
    boxes, labels = rows_of_each(boxes, order), rows_of_each(labels, order)
    counts = scores > score_threshold
    stays = []
    for i in range(scores.shape[0]):
        apart = apart_by_label(boxes[i], labels[i], counts[i])
        stays.append(survivors(apart, iou_threshold))
    scores = scores * ops.logical_and(ops.stack(tuple(stays)), counts).astype(scores.dtype)
    scores, order = top(scores, most)
    there = scores > 0
    boxes = rows_of_each(boxes, order) * there.astype(boxes.dtype).expand_dims(2)
    labels = rows_of_each(labels, order).astype(ms.int32) * there.astype(ms.int32)
    return boxes, scores, labels, there.astype(ms.int32).sum(1).astype(ms.int32)
