"""The section of a recipe that detection alone reads."""

from __future__ import annotations

from dataclasses import dataclass

from jsonargparse.typing import ClosedUnitInterval, PositiveInt

from .bounds import FourOrMore, FractionBelowOne, ImageSize, PathText, TwoOrMore


@dataclass(frozen=True)
class DetectionConfig:
    """detection: pictures with objects and the network on them; with task detection

    Args:
        train_annotations: COCO-format file of the training pictures, which lie in train_split;
            empty for data_dir/annotations/instances_<train_split>.json.
        val_annotations: the same of the validation pictures.
        canvas: height and width that training pads wide pictures to, turned for the others:
            multiples of 32 that img_scale fits in.
        max_objects: room for objects in each training picture; null for as many as the fullest has.
        val_canvas: validate on the training canvas, too: two graphs instead of one for each size of
            pictures, and other numbers than the record's, since norms see what is padded.
        stacked_convs: convolutions in a RetinaNet's head before the last one, of classes and boxes.
        score_thr: scores that an object has to exceed.
        nms_iou_threshold: of two boxes of a class that overlap by more the surer one stays.
        nms_pre: pairs of anchor and class that a RetinaNet looks at on each level, and anchors that
            a Mask R-CNN does in validation.
        max_per_img: objects that a picture gets.
        rpn_max_per_img: proposals that a Mask R-CNN's second pass looks at.
        rpn_sampler_num: anchors of a training picture that a Mask R-CNN's first pass learns from,
            half of them objects at most.
        rcnn_sampler_num: proposals of a training picture that its second pass learns from, a
            quarter of them objects at most.
    """

    train_annotations: PathText = ""
    val_annotations: PathText = ""
    canvas: tuple[ImageSize, ImageSize] = (800, 1344)
    max_objects: PositiveInt | None = None
    val_canvas: bool = False
    stacked_convs: PositiveInt = 4
    score_thr: FractionBelowOne = 0.05
    nms_iou_threshold: ClosedUnitInterval = 0.5
    nms_pre: PositiveInt = 1000
    max_per_img: PositiveInt = 100
    rpn_max_per_img: PositiveInt = 1000
    rpn_sampler_num: TwoOrMore = 256
    rcnn_sampler_num: FourOrMore = 512
