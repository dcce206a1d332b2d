"""What a Mask R-CNN is trained to make small; see :mod:`mask_rcnn` for the sources."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from .anchors import Size
from .assignment import IGNORED, Assignment
from .box_coding import OF_PROPOSALS, clip, encode
from .levels import Levels, by_anchor
from .losses import binary_cross_entropy
from .mask_rcnn import MaskRCNN
from .roi_align import crop_masks
from .sampling import OBJECTS, precedence, sample
from .selection import rows_of_each, top


class MaskRCNNLoss(nn.Cell):
    """What a Mask R-CNN is trained to make small, in all its parts; each counts as it is.

    Args:
        network: the Mask R-CNN.
        anchors: sampled of an image for the first pass, half of them objects at most.
        proposals: sampled of an image for the second pass, a quarter of them objects at most.
    """

    def __init__(self, network: MaskRCNN, anchors: int = 256, proposals: int = 512) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.sampled_anchors, self.sampled_proposals = anchors, proposals
        self.of_anchors = Assignment(foreground=0.7, background=0.3, least=0.3)
        self.of_proposals = Assignment(foreground=0.5, background=0.5, least=0.5)

    def construct(
        self,
        images: Tensor,
        boxes: Tensor,
        labels: Tensor,
        masks: Tensor,
        shapes: Tensor,
        padded_shapes: Tensor,
        anchor_draws: Tensor,
        proposal_draws: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Give the losses of objectness and boxes in the first pass, both (5,), level by level; and
        of classes, boxes and masks in the second, all ().

        Args:
            images: (N, C, H, W), normalised.
            boxes: (N, G, 4), the true ones, filled up to G.
            labels: (N, G), integers, negative where ``boxes`` is but filling.
            masks: (N, G, H, W), the objects' pixels, 0 or 1.
            shapes: (N, 2), height and width of each image in pixels, without padding.
            padded_shapes: (N, 2), the same as each is padded alone; anchors beyond take no part.
            anchor_draws: (N, A), one for each anchor, from 0 up to 1, without 1; see
                :func:`sampling.sample`.
            proposal_draws: (N, G + proposals), for the true boxes and the network's proposals.
        """
        levels = self.network.pyramid(images)
        logits, deltas, sizes = self.network.first_pass(levels)
        objectness, first_boxes = self.first_losses(
            logits, deltas, sizes, boxes, labels, padded_shapes, anchor_draws
        )
        proposals, scores = self.network.propose(logits, deltas, shapes, 2000)
        classes, second_boxes, of_masks = self.second_losses(
            levels[:4], proposals, scores, boxes, labels, masks, proposal_draws
        )
        return objectness, first_boxes, classes, second_boxes, of_masks

    def first_losses(
        self,
        logits: Levels,
        deltas: Levels,
        sizes: tuple[Size, ...],
        boxes: Tensor,
        labels: Tensor,
        padded_shapes: Tensor,
        draws: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Give the losses of the first pass, level by level."""
        found, counts, wanted = self.first_targets(sizes, boxes, labels, padded_shapes, draws)
        objects, others = found.sum(1), (counts - found).sum(1)
        divisor = (ops.maximum(objects, 1.0) + ops.maximum(others, 1.0)).sum()
        of_classes, of_boxes, begin = [], [], 0
        for x, delta, count in zip(logits, deltas, self.network.anchors.counts(sizes)):
            end = begin + count
            off = binary_cross_entropy(by_anchor(x, 1)[..., 0], found[:, begin:end])
            of_classes.append((off * counts[:, begin:end]).sum() / divisor)
            off = ops.abs(by_anchor(delta, 4).astype(ms.float32) - wanted[:, begin:end]).sum(-1)
            of_boxes.append((off * found[:, begin:end]).sum() / divisor)
            begin = end
        return ops.stack(tuple(of_classes)), ops.stack(tuple(of_boxes))

    def first_targets(
        self,
        sizes: tuple[Size, ...],
        boxes: Tensor,
        labels: Tensor,
        padded_shapes: Tensor,
        draws: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tell what the anchors are to find: float32 (N, A), 1 for those sampled that are objects
        and 0 for others; the same for all that are sampled; and differences (N, A, 4)."""
        anchors = self.network.anchors(sizes)
        within = self.network.anchors.within(sizes, padded_shapes)
        assigned = self.of_anchors(anchors, boxes, labels, within)
        order = precedence(assigned, draws, self.sampled_anchors // 2)
        least = top(order, self.sampled_anchors)[0][:, -1:]
        counts = ops.logical_and(order >= least, order > 0).astype(ms.float32)
        found = counts * (order >= OBJECTS).astype(ms.float32)
        deltas = encode(anchors.expand_dims(0), rows_of_each(boxes, ops.maximum(assigned, 0)))
        wanted = ops.select(found.expand_dims(-1) > 0, deltas, ops.zeros_like(deltas))
        return found, counts, wanted

    def second_losses(
        self,
        maps: Levels,
        proposals: Tensor,
        scores: Tensor,
        boxes: Tensor,
        labels: Tensor,
        masks: Tensor,
        draws: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Give the losses of the second pass."""
        rois, which, found, counts = self.second_samples(proposals, scores, boxes, labels, draws)
        background = self.network.num_classes * ops.ones_like(which)
        classes = ops.select(found, rows_of_each(labels.astype(ms.int32), which), background)
        logits, deltas = self.network.roi_head.boxes(maps, rois)
        counts, weights = counts.astype(ms.float32).reshape(-1), found.astype(ms.float32)
        divisor = ops.maximum(counts.sum(), 1.0)
        picked = rows_of_each(
            ops.log_softmax(logits.astype(ms.float32), -1).expand_dims(-1), classes.reshape(-1, 1)
        )
        of_classes = -(picked.reshape(-1) * counts).sum() / divisor
        own = ops.minimum(classes, self.network.num_classes - 1).reshape(-1, 1)
        delta = rows_of_each(deltas.astype(ms.float32), own).reshape(*rois.shape)
        wanted = encode(rois, rows_of_each(boxes, which), OF_PROPOSALS)
        wanted = ops.select(found.expand_dims(-1), wanted, ops.zeros_like(wanted))
        of_boxes = (ops.abs(delta - wanted).sum(-1) * weights).sum() / divisor
        objects = self.sampled_proposals // 4  # they are the first ones
        rois, which, weights = rois[:, :objects], which[:, :objects], weights[:, :objects]
        of_masks = self.mask_loss(maps, rois, own.reshape(found.shape)[:, :objects], which, masks)
        of_masks = (of_masks * weights.reshape(-1)).sum() / ops.maximum(weights.sum(), 1.0)
        return of_classes, of_boxes, of_masks

    def second_samples(
        self, proposals: Tensor, scores: Tensor, boxes: Tensor, labels: Tensor, draws: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw boxes: (N, S, 4), with the number of the true box each is to find, whether there is
        one, and whether it counts, all (N, S). True boxes are proposals too, the first ones."""
        assigned = self.of_proposals(proposals, boxes, labels, scores > 0)
        numbers = ops.arange(boxes.shape[1]).astype(ms.int32).expand_dims(0)
        themselves = ops.select(
            labels >= 0, ops.zeros_like(labels).astype(ms.int32) + numbers, IGNORED
        )
        candidates = ops.concat((boxes.astype(ms.float32), proposals), 1)
        assigned = ops.concat((themselves, assigned), 1)
        most = self.sampled_proposals
        order, found, counts = sample(assigned, draws, most, most // 4)
        which = ops.maximum(rows_of_each(assigned, order), 0)
        return rows_of_each(candidates, order), which, found, counts

    def mask_loss(
        self, maps: Levels, rois: Tensor, labels: Tensor, which: Tensor, masks: Tensor
    ) -> Tensor:
        """Give the mean cross entropy of each box's pixels, (N n,)."""
        logits = self.network.roi_head.masks(maps, rois, labels)
        targets = self.mask_targets(rois, which, masks, logits.shape[1])
        return binary_cross_entropy(logits, targets).mean((1, 2))

    def mask_targets(self, rois: Tensor, which: Tensor, masks: Tensor, size: int) -> Tensor:
        """Give the pixels of each box's object, (N n, size, size)."""
        height, width = masks.shape[2:]
        ends = ops.zeros((rois.shape[0], 2), ms.float32) + Tensor([height, width], ms.float32)
        chosen = rows_of_each(masks, which).reshape(-1, height, width)
        return crop_masks(chosen, clip(rois, ends).reshape(-1, 4), size)
