"""Which variant weights are of: by names and shapes, and where several share a network, by name."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from ..models import DETECTORS, SEGMENTERS, VARIANTS, Variant, find_variant
from ..models.variants import FAMILIES
from ..runtime.errors import UserError
from .names import (
    HUGGINGFACE,
    HUGGINGFACE_BASE,
    MASK_RCNN_LAYOUTS,
    MMPRETRAIN,
    SEGMENTER_LAYOUTS,
    TIMM,
    TIMM_METAFORMER,
    Layout,
    Naming,
    layout_of_family,
)
from .read import Source

# What a block's token mixer has that no other has; pooling and identity have no parameters.
_SIGNS = {
    "random": "random_matrix",
    "conv": "dwconv.weight",
    "attention": "qkv.weight",
    "spatial fc": "fc.weight",
}
_NOT_IN_TIMM = ("identityformer", "randformer")


Kind = Literal["classifier", "segmentation model", "RetinaNet", "Mask R-CNN"]


def kind_of(model: str) -> Kind:
    """Tell what kind of network a model is."""
    if model in DETECTORS:
        return "Mask R-CNN" if DETECTORS[model].masks else "RetinaNet"
    return "segmentation model" if model in SEGMENTERS else "classifier"


def backbone_of(model: str) -> str:
    """Give the name of the variant that a model of dense prediction stands on; of one, itself."""
    dense = SEGMENTERS.get(model) or DETECTORS.get(model)
    return dense.backbone if dense else model


def same_network(model: str, other: str) -> bool:
    """Whether one's weights fit the other, or one's backbone the other's; classifiers apart.

    Raises:
        UserError: there is no such model.
    """
    return find_variant(backbone_of(model)).same_network(find_variant(backbone_of(other)))


def variant_of(naming: Naming, source: Source, num_classes: int, asked: str | None) -> str:
    """Give the name of the variant, or of the model on one, that weights are of.

    Models for another image size or other classes share a network, and identityformer and
    poolformerv2 have the same parameters. Of these the metadata tell one, or else ``asked`` is one,
    or else the file has the name of one, or else it is the first with as many classes. A PoolFormer
    and metaformer_id, a hybrid, have the same ones too; where nothing tells, it is the PoolFormer.

    Args:
        naming: of the parameters.
        source: the weights.
        num_classes: rows of the classifier.
        asked: a model, taken if these can be its weights, or those of one with its backbone.

    Raises:
        UserError: these are no variant's depths, dims and token mixers, or those of two families.
    """
    same = _networks(naming, source)
    file_name = source.path.name.partition(".")[0]  # also of .pth.tar
    for told in (source.metadata.get("model"), asked, file_name):
        for name in same:
            if isinstance(told, str) and backbone_of(name) == backbone_of(told):
                return name
    families = {VARIANTS[backbone_of(name)].family for name in same}
    if len(families) > 1 and None not in families:
        raise UserError(
            f"{source.path}: found parameters that {' and '.join(same)} have alike, expected to be "
            f"told which: by convert --model, or the file's name, such as {same[0]}.pth"
        )
    return next((name for name in same if _has_classes(name, num_classes)), same[0])


def _has_classes(name: str, num_classes: int) -> bool:
    return name in VARIANTS and VARIANTS[name].num_classes == num_classes


def _networks(naming: Naming, source: Source) -> list[str]:
    """The models whose network the weights fit, as far as depths, dims and mixers tell."""
    depths, stem = naming.depths(source.values), source.values[naming.stem].shape
    if len(stem) != 4 or 0 in stem:
        raise UserError(f"{source.path}: found {naming.stem} {stem}, expected (dims[0], C, 7, 7)")
    layout = naming.layout.backbone or naming.layout
    models = _models_of(naming.layout)
    of_layout = {
        name: variant
        for name, variant in models.items()
        if layout_of_family(variant.family) is layout and _may_have(naming, variant)
    }
    mixers = _mixers_in(naming, source.values)
    alike = {name: v for name, v in of_layout.items() if _mixers_of(v) == mixers}
    if not alike:
        families = dict.fromkeys(v.family or "poolformer" for v in of_layout.values())
        raise UserError(
            f"{source.path}: found the token mixers {', '.join(mixers)} in its stages, expected "
            f"those of {', '.join(families) or 'a PoolFormer'}"
        )
    # their other dims are compared with all shapes
    same = [n for n, v in alike.items() if (v.depths, v.dims[0]) == (depths, stem[0])]
    if not same:
        sizes = {f"{v.depths}, {v.dims[0]}": name for name, v in reversed(alike.items())}
        known = "; ".join(f"{name} {size}" for size, name in reversed(sizes.items()))
        raise UserError(
            f"{source.path}: found depths {depths} and a stem of {stem[0]} channels, expected "
            f"those of {known}"
        )
    return same


def _models_of(layout: Layout) -> dict[str, Variant]:
    """The variants of the models that a layout is of, or that these stand on."""
    if not layout.backbone:
        return dict(VARIANTS)
    if layout in SEGMENTER_LAYOUTS:
        return {name: VARIANTS[model.backbone] for name, model in SEGMENTERS.items()}
    masks = layout in MASK_RCNN_LAYOUTS
    return {name: VARIANTS[d.backbone] for name, d in DETECTORS.items() if d.masks == masks}


def _mixers_in(naming: Naming, names: Collection[str]) -> tuple[str, ...]:
    """What the first block of each stage mixes with, "none" for nothing with parameters."""
    found = []
    for stage in naming.layout.stages:
        mixer = f"{stage}.0.token_mixer"
        kinds = [kind for kind, sign in _SIGNS.items() if naming.theirs(f"{mixer}.{sign}") in names]
        found.append(" and ".join(kinds) or "none")
    return tuple(found)


def _may_have(naming: Naming, variant: Variant) -> bool:
    """Whether the code base of a naming has a variant of its layout."""
    if naming in (TIMM, HUGGINGFACE, HUGGINGFACE_BASE, MMPRETRAIN):
        return variant.family is None
    return naming is not TIMM_METAFORMER or variant.family not in _NOT_IN_TIMM


def _mixers_of(variant: Variant) -> tuple[str, ...]:
    """The same of a variant."""
    mixers = FAMILIES[variant.family].token_mixers if variant.family else ("pooling",) * 4
    return tuple(mixer if mixer in _SIGNS else "none" for mixer in mixers)
