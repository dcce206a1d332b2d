"""RetinaNet: boxes of objects, of one network pass.

Lin et al., "Focal Loss for Dense Object Detection", arXiv 1708.02002, as sail-sg/poolformer trains
it with MMDetection 2.19; parameter names are those of its checkpoints, but for MindSpore's
``gamma`` and ``beta`` of norms. Maps between the Cells lie as the device likes them, see
``parts/layout.py``. Boxes are (x1, y1, x2, y2) in pixels.
"""

from __future__ import annotations

import math
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import Constant, Normal, Zero

from ..classifier import StagedClassifier, initialize
from ..parts.convolutions import SpatialConv
from ..parts.layout import channels_last, to_channels_first
from ..parts.resizing import size_of
from .anchors import Anchors, Size
from .assignment import IGNORED, Assignment
from .atlas import apart, occupied, side_by_side
from .box_coding import clip, decode, encode
from .fpn import FPN, ConvModule
from .levels import Levels, by_anchor, sizes_of
from .losses import focal_loss
from .nms import best_by_label
from .on_backbone import OnBackbone
from .selection import rows_of_each, top

STRIDES = (8, 16, 32, 64, 128)
RATIOS = (0.5, 1.0, 2.0)
SCALES = (4.0, 4 * 2 ** (1 / 3), 4 * 2 ** (2 / 3))
# What an object's probability is before training, for each anchor and class.
PRIOR = 0.01


class RetinaNetHead(nn.Cell):
    """Maps of an FPN to logits and box differences of each anchor; one head for all levels.

    Args:
        channels: of the maps, and of the layers.
        num_classes: each with a sigmoid of its own; background is none of them.
        anchors_per_place: how many boxes a place starts from.
        depth: convolutions before the last one, of classes and of boxes.
    """

    def __init__(self, channels: int, num_classes: int, anchors_per_place: int, depth: int) -> None:
        super().__init__()
        self.cls_convs = nn.CellList(
            [ConvModule(SpatialConv(channels, channels)) for _ in range(depth)]
        )
        self.reg_convs = nn.CellList(
            [ConvModule(SpatialConv(channels, channels)) for _ in range(depth)]
        )
        self.retina_cls = SpatialConv(channels, anchors_per_place * num_classes)
        self.retina_reg = SpatialConv(channels, anchors_per_place * 4)
        for _, cell in self.cells_and_names():
            if isinstance(cell, SpatialConv):
                initialize(cell.weight, Normal(0.01))
                initialize(cell.bias, Zero())
        initialize(self.retina_cls.bias, Constant(math.log(PRIOR / (1 - PRIOR))))

    def construct(self, maps: Levels) -> tuple[list[Tensor], list[Tensor]]:
        if not channels_last():
            found = [self.look(x) for x in maps]
            return [logits for logits, _ in found], [deltas for _, deltas in found]
        sizes = tuple([size_of(x) for x in maps])
        there = occupied(sizes).astype(maps[0].dtype)
        logits, deltas = self.look(side_by_side(maps, sizes), there)
        return apart(logits, sizes), apart(deltas, sizes)

    def look(self, x: Tensor, there: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
        """Give logits and box differences of a map, 0 where ``there`` is, and stays, 0."""
        of_classes = x
        of_boxes = x
        for conv in self.cls_convs:
            of_classes = ops.relu(conv(of_classes)) * there
        for conv in self.reg_convs:
            of_boxes = ops.relu(conv(of_boxes)) * there
        return self.retina_cls(of_classes), self.retina_reg(of_boxes)


class RetinaNet(OnBackbone):
    """Images (N, C, H, W) to logits and box differences of every anchor, and to boxes.

    Args:
        backbone: a network with ``features_only`` and ``out_indices`` 1, 2 and 3; any PoolFormer or
            MetaFormer.
        num_classes: 80 in COCO.
        channels: of neck and head.
        stacked_convs: convolutions in the head before the last one, of classes and of boxes.
        score_threshold: of :meth:`detect`, as are the others: scores that exceed it count.
        iou_threshold: of two boxes of a class that overlap by more the better one stays.
        candidates: pairs of anchor and class that are looked at on each level.
        detections: boxes that an image gets.

    Raises:
        ValueError: the backbone is a classifier, or gives other maps.
    """

    out_indices = (1, 2, 3)
    takes_boxes = True  # see :mod:`runtime.amp`

    def __init__(
        self,
        backbone: StagedClassifier,
        *,
        num_classes: int = 80,
        channels: int = 256,
        stacked_convs: int = 4,
        score_threshold: float = 0.05,
        iou_threshold: float = 0.5,
        candidates: int = 1000,
        detections: int = 100,
    ) -> None:
        super().__init__(backbone, num_classes)
        self.category_ids: tuple[int, ...] = ()  # of the classes, as weights' metadata tell them
        self.selection = Selection(
            num_classes, score_threshold, iou_threshold, candidates, detections
        )
        self.neck = FPN(self.widths, channels, coarser_levels=2)
        per_place = self.selection.anchors.per_place
        self.bbox_head = RetinaNetHead(channels, num_classes, per_place, stacked_convs)

    @property
    def limits(self) -> dict[str, Any]:
        """What counts as an object, by the names of the arguments."""
        return {
            "score_threshold": self.selection.score_threshold,
            "iou_threshold": self.selection.iou_threshold,
            "candidates": self.selection.most_candidates,
            "detections": self.selection.detections,
        }

    def construct(self, images: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Give logits and box differences on five levels, at strides 8 to 128.

        Args:
            images: (N, C, H, W), normalised.

        Returns:
            logits (N, anchors * num_classes, h, w), channel = anchor * num_classes + class; and
            differences (N, anchors * 4, h, w), channel = anchor * 4 + coordinate.
        """
        logits, deltas = self.bbox_head(self.neck(self.backbone.feature_maps(images)))
        return (
            tuple([to_channels_first(x) for x in logits]),
            tuple([to_channels_first(x) for x in deltas]),
        )

    def detect(
        self, images: Tensor, shapes: Tensor, scale_factors: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Give the objects in images, the surest first, D = ``detections`` places for each image.

        GroupNorm averages over all of an image, filling included: what is found depends on how far
        an image is padded.

        Args:
            images: (N, C, H, W), normalised.
            shapes: (N, 2), height and width of each image in pixels, without padding.
            scale_factors: (N, 2), how many times as wide and as high each image is as the one that
                boxes are asked for; None for boxes in ``images``.

        Returns:
            boxes (N, D, 4), scores (N, D), labels (N, D) int32, and how many there are, (N,) int32;
            beyond that many all is 0.
        """
        logits, deltas = self(images)
        return self.select(logits, deltas, shapes, scale_factors)

    def select(
        self,
        logits: Levels,
        deltas: Levels,
        shapes: Tensor,
        scale_factors: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As :meth:`detect`, of what a call of the network gives; for a graph, too."""
        return self.selection(logits, deltas, shapes, scale_factors)


class Selection(nn.Cell):
    """From a RetinaNet's maps to objects; it has no parameters.

    Args:
        num_classes: and the others are as in :class:`RetinaNet`.
        score_threshold: see there.
        iou_threshold: see there.
        candidates: see there.
        detections: see there.
    """

    takes_boxes = True  # see :mod:`runtime.amp`

    def __init__(
        self,
        num_classes: int,
        score_threshold: float,
        iou_threshold: float,
        candidates: int,
        detections: int,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.score_threshold, self.iou_threshold = score_threshold, iou_threshold
        self.most_candidates, self.detections = candidates, detections
        self.anchors = Anchors(STRIDES, RATIOS, SCALES)

    def construct(
        self,
        logits: Levels,
        deltas: Levels,
        shapes: Tensor,
        scale_factors: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As :meth:`RetinaNet.select`."""
        boxes, scores, labels = self.candidates(logits, deltas, shapes)
        if scale_factors is not None:
            boxes = boxes / ops.concat((scale_factors, scale_factors), 1).expand_dims(1)
        return best_by_label(
            boxes,
            scores,
            labels,
            score_threshold=self.score_threshold,
            iou_threshold=self.iou_threshold,
            most=self.detections,
        )

    def candidates(
        self, logits: Levels, deltas: Levels, shapes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Give the surest pairs of anchor and class of each level, whatever their scores.

        Returns:
            boxes (N, n, 4), scores (N, n) and labels (N, n), level by level.
        """
        sizes = sizes_of(logits)
        anchors = self.anchors(sizes)
        boxes, scores, labels, begin = [], [], [], 0
        for x, delta, count in zip(logits, deltas, self.anchors.counts(sizes)):
            wide = by_anchor(x, self.num_classes).astype(ms.float32)
            pairs = ops.sigmoid(wide).reshape(wide.shape[0], -1)
            score, pair = top(pairs, min(self.most_candidates, pairs.shape[1]))
            which = pair // self.num_classes
            start = ops.gather(anchors[begin : begin + count], which, 0)
            boxes.append(decode(start, rows_of_each(by_anchor(delta, 4), which)))
            scores.append(score)
            labels.append(pair - which * self.num_classes)
            begin += count
        return clip(ops.concat(boxes, 1), shapes), ops.concat(scores, 1), ops.concat(labels, 1)


class RetinaNetLoss(nn.Cell):
    """What a RetinaNet is trained to make small: focal loss, and L1 of the box differences.

    Args:
        num_classes: 80 in COCO.
    """

    def __init__(self, num_classes: int = 80) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.anchors = Anchors(STRIDES, RATIOS, SCALES)
        self.assignment = Assignment(foreground=0.5, background=0.4, least=0.0)

    def construct(
        self, logits: Levels, deltas: Levels, boxes: Tensor, labels: Tensor, shapes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Give the losses of classes and of boxes on each level, both (5,); the loss is their sum.

        Args:
            logits: of the network.
            deltas: of the network.
            boxes: (N, G, 4), the true ones, filled up to G.
            labels: (N, G), integers, negative where ``boxes`` is but filling.
            shapes: (N, 2), height and width in pixels of each image as it is padded alone; anchors
                beyond take no part.
        """
        sizes = sizes_of(logits)
        classes, wanted, found = self.targets(sizes, boxes, labels, shapes)
        counted = (classes != IGNORED).astype(ms.float32)
        weights = found.astype(ms.float32)
        divisor = ops.maximum(weights.sum(1), 1.0).sum()
        pairs = ops.concat(tuple([by_anchor(x, self.num_classes) for x in logits]), 1)
        found_deltas = ops.concat(tuple([by_anchor(x, 4) for x in deltas]), 1).astype(ms.float32)
        focal, off = focal_loss(pairs, classes), ops.abs(found_deltas - wanted)
        focal, off = focal * counted / divisor, off.sum(-1) * weights / divisor
        of_classes, of_boxes, begin = [], [], 0
        for count in self.anchors.counts(sizes):
            of_classes.append(focal[:, begin : begin + count].sum())
            of_boxes.append(off[:, begin : begin + count].sum())
            begin += count
        return ops.stack(tuple(of_classes)), ops.stack(tuple(of_boxes))

    def targets(
        self, sizes: tuple[Size, ...], boxes: Tensor, labels: Tensor, shapes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tell what each anchor is to find.

        Args:
            sizes: height and width of each level's map.
            boxes: as for :meth:`construct`, and so are the others.
            labels: (N, G).
            shapes: (N, 2).

        Returns:
            class (N, A) int32, ``num_classes`` for background and IGNORED for those that do not
            count; differences (N, A, 4), 0 where there is no object; and where there is one,
            bool (N, A).
        """
        anchors = self.anchors(sizes)
        assigned = self.assignment(anchors, boxes, labels, self.anchors.within(sizes, shapes))
        found = assigned >= 0
        which = ops.maximum(assigned, 0)
        other = ops.select(assigned == IGNORED, IGNORED, self.num_classes * ops.ones_like(which))
        classes = ops.select(found, rows_of_each(labels.astype(ms.int32), which), other)
        deltas = encode(anchors.expand_dims(0), rows_of_each(boxes, which))
        return classes, ops.select(found.expand_dims(-1), deltas, ops.zeros_like(deltas)), found
