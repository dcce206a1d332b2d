"""The models of semantic segmentation as MindCV's registry knows them.

Importing this module registers them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mindcv.models.registry import register_model

from .. import registry
from ..registry import IMAGENET_MEAN, IMAGENET_STD, build
from ..registry import default_cfgs as classifier_cfgs
from ..variants import SEGMENTERS, VARIANTS, add_segmenter
from .semantic_fpn import SemanticFPN

__all__: list[str] = []

NUM_CLASSES = 150  # of ADE20K


def _config(backbone: str) -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": NUM_CLASSES,
        "input_size": (3, 512, 512),
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "first_conv": f"backbone.{classifier_cfgs[backbone]['first_conv']}",
        "classifier": "decode_head.conv_seg",
    }


# MindCV's registry reads the configuration of each model from this name.
default_cfgs = {name: _config(segmenter.backbone) for name, segmenter in SEGMENTERS.items()}


def register(backbone: str) -> None:
    """Add the segmentation model on a variant of one's own; see :func:`models.registry.register`.

    ``backbone`` is the variant's name; the model's is semantic_fpn_<backbone>.
    """
    name = add_segmenter(backbone)
    default_cfgs[name] = _config(backbone)
    globals()[name] = register_model(_entry_point(name))


def _entry_point(name: str) -> Callable[..., SemanticFPN]:
    def create(
        pretrained: bool = False,
        num_classes: int = NUM_CLASSES,
        in_channels: int = 3,
        **kwargs: Any,
    ) -> SemanticFPN:
        variant = VARIANTS[SEGMENTERS[name].backbone]
        backbone = build(variant, in_channels=in_channels, features_only=True)
        network = SemanticFPN(backbone, num_classes=num_classes, **kwargs)
        network.variant = name
        if pretrained:  # of the backbone: neck and head have no published address
            assert registry.load_pretrained is not None  # the package has set it
            registry.load_pretrained(network, name)
        return network

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"Give a {name}; the keywords are those of :class:`SemanticFPN`."
    return create


for _name in SEGMENTERS:
    globals()[_name] = register_model(_entry_point(_name))
