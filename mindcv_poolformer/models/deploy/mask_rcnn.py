"""A Mask R-CNN as it serves."""

from __future__ import annotations

from mindspore import Tensor

from ..dense.fpn import every_second_place
from ..dense.mask_rcnn import MaskRCNN, TwoPasses
from .folding import copy_of
from .fpn import Backbone, DeployedFPN


class DeployedMaskRCNN(TwoPasses):
    """What to_deploy makes of a Mask R-CNN: images (N, C, H, W) to boxes and masks of objects.

    The backbone's blocks are those of its classifier's deploy form, and the maps' own norms go into
    the neck, see :class:`DeployedFPN`.

    Args:
        model: left alone.
        backbone: the deploy form of its backbone.
    """

    def __init__(self, model: MaskRCNN, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = DeployedFPN(model)
        self.rpn_head = copy_of(model.rpn_head)
        self.roi_head = copy_of(model.roi_head)
        self.anchors = model.anchors
        self.num_classes = model.num_classes
        self.proposals_per_level, self.proposals = model.proposals_per_level, model.proposals
        self.score_threshold, self.iou_threshold = model.score_threshold, model.iou_threshold
        self.most_candidates, self.detections = model.most_candidates, model.detections
        self.set_train(False)

    def pyramid(self, images: Tensor) -> list[Tensor]:
        levels = self.neck(self.backbone.stage_maps(images))
        levels.append(every_second_place(levels[-1]))
        return levels
