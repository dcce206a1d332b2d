"""Mask R-CNN: boxes of objects in two passes, and the pixels of each.

He et al., arXiv 1703.06870, on Ren et al., "Faster R-CNN", arXiv 1506.01497, as sail-sg/poolformer
trains it with MMDetection 2.19; parameter names are those of its checkpoints, but for MindSpore's
``gamma`` and ``beta`` of norms. Maps between the Cells lie as the device likes them, see
``parts/layout.py``. Boxes are (x1, y1, x2, y2) in pixels.
"""

from __future__ import annotations

import math
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from ..classifier import StagedClassifier
from ..parts.layout import to_channels_first
from .anchors import Anchors, Size
from .box_coding import OF_PROPOSALS, clip, decode
from .fpn import FPN, every_second_place
from .levels import Levels, all_finite, by_anchor, sizes_of
from .mask_rcnn_heads import STRIDES, RoIHead, RPNHead
from .nms import best_by_label, survivors
from .on_backbone import OnBackbone
from .selection import rows_of_each, top

RATIOS = (0.5, 1.0, 2.0)
SCALES = (8.0,)
OVERLAP_OF_PROPOSALS = 0.7  # within a level, that is still allowed


class TwoPasses(nn.Cell):
    """What a Mask R-CNN and its deploy form do alike once they have the maps of five levels.

    The parts and settings are those of :class:`MaskRCNN`, by the same names.
    """

    takes_boxes = True  # see :mod:`runtime.amp`

    rpn_head: RPNHead
    roi_head: RoIHead
    anchors: Anchors
    num_classes: int
    proposals_per_level: int
    proposals: int
    score_threshold: float
    iou_threshold: float
    most_candidates: int
    detections: int

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """Give the maps of five levels, at strides 4 to 64, as the device likes them."""
        raise NotImplementedError

    def first_pass(
        self, maps: Levels
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Size, ...]]:
        """Give logits (N, 3, h, w) and differences (N, 12, h, w) of the anchors, and h and w."""
        logits, deltas = self.rpn_head(maps)
        logits = tuple([to_channels_first(x) for x in logits])
        return logits, tuple([to_channels_first(x) for x in deltas]), sizes_of(logits)

    def propose(
        self, logits: Levels, deltas: Levels, shapes: Tensor, per_level: int
    ) -> tuple[Tensor, Tensor]:
        """Give where objects may be: boxes (N, n, 4) and scores (N, n), 0 for none; n, as many as
        ``proposals``, are left of all.

        No gradient goes through them.

        Args:
            logits: of :meth:`first_pass`, and so are ``deltas``.
            deltas: of each level.
            shapes: (N, 2), height and width of each image in pixels, without padding.
            per_level: as many of the best go into the NMS of each level.
        """
        sizes = sizes_of(logits)
        anchors = self.anchors(sizes)
        boxes, scores, begin = [], [], 0
        for x, delta, count in zip(logits, deltas, self.anchors.counts(sizes)):
            score = ops.sigmoid(by_anchor(x, 1).astype(ms.float32)).reshape(x.shape[0], -1)
            score, which = top(score, min(per_level, count))
            start = ops.gather(anchors[begin : begin + count], which, 0)
            found = clip(decode(start, rows_of_each(by_anchor(delta, 4), which)), shapes)
            stays = tuple([survivors(found[i], OVERLAP_OF_PROPOSALS) for i in range(x.shape[0])])
            filled = ops.logical_and(found[..., 2] > found[..., 0], found[..., 3] > found[..., 1])
            boxes.append(found)
            scores.append(score * ops.logical_and(ops.stack(stays), filled).astype(score.dtype))
            begin += count
        score, order = top(ops.concat(scores, 1), self.proposals)
        box = rows_of_each(ops.concat(boxes, 1), order)
        box = box * (score > 0).astype(box.dtype).expand_dims(-1)
        return ops.stop_gradient(box), ops.stop_gradient(score)

    def detect(
        self, images: Tensor, shapes: Tensor, scale_factors: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Give the objects in images, the surest first, D = ``detections`` places for each image.

        GroupNorm averages over all of an image, filling included: what is found depends on how far
        an image is padded.

        Args:
            images: (N, C, H, W), normalised.
            shapes: (N, 2), height and width of each image in pixels, without padding.
            scale_factors: (N, 2), how many times as wide and as high each image is as the one that
                boxes are asked for; None for boxes in ``images``.

        Returns:
            boxes (N, D, 4), scores (N, D), labels (N, D) int32, how many there are, (N,) int32,
            beyond which all is 0, and the probability of each object's pixels within its box,
            (N, D, 28, 28), for ``data/detection/mask_pasting.py``.
        """
        return self.detect_checked(images, shapes, scale_factors)[1:]

    def detect_checked(
        self, images: Tensor, shapes: Tensor, scale_factors: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """As :meth:`detect`, and before it whether all that both passes tell is finite."""
        told = self.detect_with_candidates(images, shapes, scale_factors)
        return told[0], *told[2]

    def detect_with_candidates(
        self, images: Tensor, shapes: Tensor, scale_factors: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor], tuple[Tensor, ...]]:
        """Whether all is finite; :meth:`candidates`; and as :meth:`detect`."""
        levels = self.pyramid(images)
        logits, deltas, _ = self.first_pass(levels)
        proposals, objectness = self.propose(logits, deltas, shapes, self.proposals_per_level)
        told = self.roi_head.boxes(levels[:4], proposals)
        finite = all_finite((*logits, *deltas, *told))
        candidates = self.candidates(*told, proposals, objectness, shapes, scale_factors)
        boxes, scores, labels, counts = best_by_label(
            *candidates,
            score_threshold=self.score_threshold,
            iou_threshold=self.iou_threshold,
            most=self.detections,
        )
        within = boxes
        if scale_factors is not None:
            within = boxes * ops.concat((scale_factors, scale_factors), 1).expand_dims(1)
        masks = ops.sigmoid(self.roi_head.masks(levels[:4], within, labels).astype(ms.float32))
        n, most = labels.shape
        masks = masks.reshape(n, most, *masks.shape[1:])
        return finite, candidates, (boxes, scores, labels, counts, masks)

    def candidates(
        self,
        logits: Tensor,
        deltas: Tensor,
        proposals: Tensor,
        objectness: Tensor,
        shapes: Tensor,
        scale_factors: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Give the surest pairs of proposal and class, whatever their scores.

        Args:
            logits: of :meth:`RoIHead.boxes` for the proposals, and so are ``deltas``.
            deltas: of each class.
            proposals: (N, n, 4).
            objectness: (N, n), 0 where there is no proposal.
            shapes: as for :meth:`detect`, and so are ``scale_factors``.
            scale_factors: (N, 2), or None.

        Returns:
            boxes (N, m, 4), scores (N, m), the best first, and labels (N, m).
        """
        n, count, _ = proposals.shape
        scores = ops.softmax(logits.astype(ms.float32), -1)[:, : self.num_classes]
        scores = scores.reshape(n, count, -1) * (objectness > 0).astype(ms.float32)[..., None]
        pairs = count * self.num_classes
        scores, pair = top(scores.reshape(n, pairs), min(self.most_candidates, pairs))
        which = pair // self.num_classes
        delta = rows_of_each(deltas.reshape(n, pairs, 4), pair)
        boxes = clip(decode(rows_of_each(proposals, which), delta, OF_PROPOSALS), shapes)
        if scale_factors is not None:
            boxes = boxes / ops.concat((scale_factors, scale_factors), 1).expand_dims(1)
        return boxes, scores, pair - which * self.num_classes


class MaskRCNN(OnBackbone, TwoPasses):
    """Images (N, C, H, W) to boxes and masks of objects.

    Args:
        backbone: a network with ``features_only``; any PoolFormer or MetaFormer.
        num_classes: 80 in COCO.
        channels: of neck and heads.
        proposals_per_level: anchors that are looked at on each level by :meth:`detect`.
        proposals: of the first pass, that the second one looks at.
        score_threshold: of :meth:`detect`, as are the others: scores that exceed it count.
        iou_threshold: of two boxes of a class that overlap by more the better one stays.
        candidates: pairs of proposal and class that are looked at, the best ones. Unless there
            are more pairs and fewer than ``detections`` of these survive, all that could count do.
        detections: boxes that an image gets.

    Raises:
        ValueError: the backbone is a classifier, or gives other maps.
    """

    out_indices = (0, 1, 2, 3)

    def __init__(
        self,
        backbone: StagedClassifier,
        *,
        num_classes: int = 80,
        channels: int = 256,
        proposals_per_level: int = 1000,
        proposals: int = 1000,
        score_threshold: float = 0.05,
        iou_threshold: float = 0.5,
        candidates: int = 4096,
        detections: int = 100,
    ) -> None:
        super().__init__(backbone, num_classes)
        self.category_ids: tuple[int, ...] = ()  # of the classes, as weights' metadata tell them
        self.proposals_per_level, self.proposals = proposals_per_level, proposals
        self.score_threshold, self.iou_threshold = score_threshold, iou_threshold
        self.most_candidates, self.detections = candidates, detections
        self.anchors = Anchors(STRIDES, RATIOS, SCALES)
        self.neck = FPN(self.widths, channels)
        self.rpn_head = RPNHead(channels, self.anchors.per_place)
        self.roi_head = RoIHead(channels, num_classes)

    @property
    def limits(self) -> dict[str, Any]:
        """What counts as an object, by the names of the arguments."""
        return {
            "proposals_per_level": self.proposals_per_level,
            "proposals": self.proposals,
            "score_threshold": self.score_threshold,
            "iou_threshold": self.iou_threshold,
            "candidates": self.most_candidates,
            "detections": self.detections,
        }

    def anchors_on(self, height: int, width: int) -> int:
        """Tell how many anchors an image of a size in pixels has."""
        sizes = [(math.ceil(height / stride), math.ceil(width / stride)) for stride in STRIDES]
        return sum(self.anchors.counts(tuple(sizes)))

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """Give the maps of five levels, at strides 4 to 64, as the device likes them."""
        levels = self.neck(self.backbone.feature_maps(images))
        levels.append(every_second_place(levels[-1]))
        return levels

    def construct(self, images: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Give logits and box differences of the first pass on five levels, at strides 4 to 64.

        Args:
            images: (N, C, H, W), normalised.

        Returns:
            as :meth:`first_pass`, without h and w.
        """
        logits, deltas, _ = self.first_pass(self.pyramid(images))
        return logits, deltas
