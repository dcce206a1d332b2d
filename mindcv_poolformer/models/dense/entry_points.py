"""The models of dense prediction as MindCV's registry knows them.

Importing this module registers them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mindcv.models.registry import register_model

from .. import registry
from ..registry import IMAGENET_MEAN, IMAGENET_STD, build
from ..registry import default_cfgs as classifier_cfgs
from ..variants import DETECTORS, SEGMENTERS, VARIANTS, add_detectors, add_segmenter
from .mask_rcnn import MaskRCNN
from .retinanet import RetinaNet
from .semantic_fpn import SemanticFPN

__all__: list[str] = []

Dense = SemanticFPN | RetinaNet | MaskRCNN
CLASSIFIERS = {
    SemanticFPN: "decode_head.conv_seg",
    RetinaNet: "bbox_head.retina_cls",
    MaskRCNN: "roi_head.bbox_head.fc_cls",
}


def _cell_of(name: str) -> type[Dense]:
    if name in SEGMENTERS:
        return SemanticFPN
    return MaskRCNN if DETECTORS[name].masks else RetinaNet


def _backbone_of(name: str) -> str:
    return (SEGMENTERS.get(name) or DETECTORS[name]).backbone


def _config(name: str) -> dict[str, Any]:
    segments = name in SEGMENTERS  # ADE20K's scenes, else COCO's pictures, which are padded
    return {
        "url": "",
        "num_classes": 150 if segments else 80,
        "input_size": (3, 512, 512) if segments else (3, 800, 1344),
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "first_conv": f"backbone.{classifier_cfgs[_backbone_of(name)]['first_conv']}",
        "classifier": CLASSIFIERS[_cell_of(name)],
    }


# MindCV's registry reads the configuration of each model from this name.
default_cfgs = {name: _config(name) for name in (*SEGMENTERS, *DETECTORS)}


def register(backbone: str) -> None:
    """Add the models on a variant of one's own; see :func:`models.registry.register`.

    ``backbone`` is the variant's name; theirs are semantic_fpn_<backbone>, retinanet_<backbone> and
    mask_rcnn_<backbone>.
    """
    for name in (add_segmenter(backbone), *add_detectors(backbone)):
        default_cfgs[name] = _config(name)
        globals()[name] = register_model(_entry_point(name))


def _entry_point(name: str) -> Callable[..., Dense]:
    cell, variant = _cell_of(name), VARIANTS[_backbone_of(name)]

    def create(
        pretrained: bool = False,
        num_classes: int = default_cfgs[name]["num_classes"],
        in_channels: int = 3,
        **kwargs: Any,
    ) -> Dense:
        indices = cell.out_indices or (0, 1, 2, 3)
        backbone = build(variant, in_channels=in_channels, features_only=True, out_indices=indices)
        network = cell(backbone, num_classes=num_classes, **kwargs)
        network.variant = name
        if pretrained:  # of the backbone: neck and head have no published address
            assert registry.load_pretrained is not None  # the package has set it
            registry.load_pretrained(network, name)
        return network

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"Give a {name}; the keywords are those of :class:`{cell.__name__}`."
    return create


for _name in default_cfgs:
    globals()[_name] = register_model(_entry_point(_name))
