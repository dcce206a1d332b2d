"""The variants as MindCV's registry knows them.

Importing this module registers them, PoolFormer's in the place of MindCV's own of the same names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin

from mindcv.models.registry import register_model

from .classifier import StagedClassifier
from .hybrid import Hybrid
from .metaformer import MetaFormer
from .poolformer import PoolFormer
from .published import HUB, PUBLISHED
from .variants import VARIANTS, Variant, add_variant

__all__: list[str] = []

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Fills a network with a variant's published weights. The package sets it: models know no files.
load_pretrained: Callable[[Any, str], None] | None = None


def _config(name: str, variant: Variant) -> dict[str, Any]:
    first = "downsample_layers.0.conv" if variant.is_metaformer else "patch_embed.proj"
    return {
        # MindCV lists those with an address as pretrained; it is the package that downloads
        "url": urljoin(f"{HUB}/", PUBLISHED[name]) if name in PUBLISHED else "",
        "num_classes": variant.num_classes,
        "input_size": (3, variant.image_size, variant.image_size),
        "crop_pct": variant.crop_pct,
        "interpolation": "bicubic",
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "first_conv": first,
        "classifier": "head",
    }


# MindCV's registry reads the configuration of each model from this name.
default_cfgs = {name: _config(name, variant) for name, variant in VARIANTS.items()}


def build(variant: Variant, **settings: Any) -> StagedClassifier:
    """Give a network of a variant; the settings are those of its Cell."""
    cell, size = cell_of(variant), (variant.depths, variant.dims)
    family = () if variant.family is None else (variant.family,)
    if cell is not MetaFormer:
        settings = {"layer_scale_init": variant.layer_scale_init, **settings}
    return cell(*size, *family, **settings)


def cell_of(variant: Variant) -> type[StagedClassifier]:
    """Give the Cell that networks of a variant are."""
    if variant.is_metaformer:
        return MetaFormer
    return Hybrid if variant.family else PoolFormer


def _entry_point(name: str) -> Callable[..., StagedClassifier]:
    variant = VARIANTS[name]
    cell = cell_of(variant)

    def create(
        pretrained: bool = False,
        num_classes: int = variant.num_classes,
        in_channels: int = 3,
        **kwargs: Any,
    ) -> StagedClassifier:
        network = build(variant, num_classes=num_classes, in_channels=in_channels, **kwargs)
        network.variant = name
        if pretrained:
            assert load_pretrained is not None  # the package has set it
            load_pretrained(network, name)
        return network

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"Give a {name}; the keywords are those of :class:`{cell.__name__}`."
    return create


def register(name: str, variant: Variant) -> None:
    """Add a variant of one's own, for ``mindcv.create_model``, recipes and weights files.

    Raises:
        ValueError: the name is taken.
    """
    add_variant(name, variant)
    default_cfgs[name] = _config(name, variant)
    globals()[name] = register_model(_entry_point(name))


for _name in VARIANTS:
    globals()[_name] = register_model(_entry_point(_name))
