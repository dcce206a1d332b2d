"""Which of an image's true boxes an anchor, or a proposal, is to find.

Ren et al., "Faster R-CNN", arXiv 1506.01497, section 3.1.2, as MMDetection 2.19 does it in its
MaxIoUAssigner. Boxes are (x1, y1, x2, y2) in pixels, width x2 - x1.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

BACKGROUND = -1
IGNORED = -2


class Assignment(nn.Cell):
    """Give each anchor the number of a true box, BACKGROUND or IGNORED.

    An anchor gets the box that it overlaps most, the first of several, where their IoU is
    ``foreground`` or more; it is background where that is under ``background``, and ignored between
    the two. Then each box, in order, takes those anchors that have its own largest IoU, where this
    is ``least`` or more, whatever they had before: no box goes without. Equal IoUs are equal
    numbers, to the last bit.

    Args:
        foreground: IoU of a match.
        background: IoU under which nothing is there.
        least: IoU of the anchors that a box takes.
    """

    def __init__(self, foreground: float, background: float, least: float) -> None:
        super().__init__()
        self.foreground, self.background, self.least = foreground, background, least

    def construct(
        self, anchors: Tensor, boxes: Tensor, labels: Tensor, taking_part: Tensor | None = None
    ) -> Tensor:
        """Give the assignment, int32 (N, A).

        Args:
            anchors: (A, 4), or (N, A, 4).
            boxes: (N, G, 4), filled up to G.
            labels: (N, G), negative where ``boxes`` is but filling.
            taking_part: (N, A), False for the anchors that are ignored; None for all.
        """
        if anchors.ndim == 2:
            anchors = anchors.expand_dims(0)
        overlap = iou(boxes.astype(ms.float32), anchors)
        counts = (labels >= 0).expand_dims(2)
        if taking_part is not None:
            counts = ops.logical_and(counts, taking_part.expand_dims(1))
        # Filling and what takes no part are worse than nothing in common.
        overlap = ops.select(counts, overlap, ops.zeros_like(overlap) - 1.0)
        best = ops.amax(overlap, 1)
        assigned = ops.select(best >= self.foreground, overlap.argmax(1).astype(ms.int32), IGNORED)
        assigned = ops.select(best < self.background, BACKGROUND, assigned)
        best_of_box = ops.amax(overlap, 2, True)
        taken = ops.logical_and(overlap == best_of_box, best_of_box >= self.least)
        order = ops.arange(1, boxes.shape[1] + 1).reshape(1, -1, 1)
        last = ops.amax(taken.astype(ms.int32) * order.astype(ms.int32), 1)
        assigned = ops.select(last > 0, last - 1, assigned)
        return assigned if taking_part is None else ops.select(taking_part, assigned, IGNORED)


def iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Give intersection over union of every two boxes, float32 (N, n, m).

    Args:
        boxes: (N, n, 4).
        others: (N, m, 4), or (1, m, 4).
    """
    # One coordinate at a time: an axis of two numbers at the end is slow.
    x1, y1, x2, y2 = [boxes[:, :, i : i + 1] for i in range(4)]
    u1, v1, u2, v2 = [others[:, :, i].expand_dims(1) for i in range(4)]
    width = ops.relu(ops.minimum(x2, u2) - ops.maximum(x1, u1))
    height = ops.relu(ops.minimum(y2, v2) - ops.maximum(y1, v1))
    shared = width * height
    areas = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1)
    return shared / ops.maximum(areas - shared, 1e-6)
