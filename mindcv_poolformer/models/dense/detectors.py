"""The models of object detection as MindCV's registry knows them.

Importing this module registers them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mindcv.models.registry import register_model

from .. import registry
from ..registry import IMAGENET_MEAN, IMAGENET_STD, build
from ..registry import default_cfgs as classifier_cfgs
from ..variants import DETECTORS, VARIANTS, Detector, add_detectors
from .mask_rcnn import MaskRCNN
from .retinanet import RetinaNet

__all__: list[str] = []

NUM_CLASSES = 80  # of COCO


def _config(detector: Detector) -> dict[str, Any]:
    first = classifier_cfgs[detector.backbone]
    return {
        "url": "",
        "num_classes": NUM_CLASSES,
        "input_size": (3, 800, 1344),  # images are fitted in, and padded to multiples of 32
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "first_conv": f"backbone.{first['first_conv']}",
        "classifier": "roi_head.bbox_head.fc_cls" if detector.masks else "bbox_head.retina_cls",
    }


# MindCV's registry reads the configuration of each model from this name.
default_cfgs = {name: _config(detector) for name, detector in DETECTORS.items()}


def register(backbone: str) -> None:
    """Add the detectors on a variant of one's own; see :func:`models.registry.register`.

    ``backbone`` is the variant's name; theirs are retinanet_<backbone> and mask_rcnn_<backbone>.
    """
    for name in add_detectors(backbone):
        default_cfgs[name] = _config(DETECTORS[name])
        globals()[name] = register_model(_entry_point(name))


def _entry_point(name: str) -> Callable[..., RetinaNet | MaskRCNN]:
    backbone_name = DETECTORS[name].backbone
    cell: type[RetinaNet] | type[MaskRCNN] = MaskRCNN if DETECTORS[name].masks else RetinaNet

    def create(
        pretrained: bool = False,
        num_classes: int = NUM_CLASSES,
        in_channels: int = 3,
        **kwargs: Any,
    ) -> RetinaNet | MaskRCNN:
        backbone = build(
            VARIANTS[backbone_name],
            in_channels=in_channels,
            features_only=True,
            out_indices=cell.out_indices,
        )
        network = cell(backbone, num_classes=num_classes, **kwargs)
        network.variant = name
        if pretrained:  # of the backbone: neck and head have no published address
            assert registry.load_pretrained is not None  # the package has set it
            registry.load_pretrained(network, name)
        return network

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"Give a {name}; the keywords are those of :class:`{cell.__name__}`."
    return create


for _name in DETECTORS:
    globals()[_name] = register_model(_entry_point(_name))
