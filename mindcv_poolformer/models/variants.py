"""The tables of models: every fact about a model stands here and nowhere else.

Sources: Yu et al., "MetaFormer Is Actually What You Need for Vision", arXiv 2111.11418, tables 1
and 5 and appendix, and "MetaFormer Baselines for Vision", arXiv 2210.13452; training settings,
crops, MACs, ImageNet-1K top-1, ADE20K mIoU and COCO AP as published in sail-sg/poolformer and
sail-sg/metaformer.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from types import MappingProxyType

from ..runtime.errors import UserError


@dataclass(frozen=True)
class Family:
    """What the models of a family are made of; see ``metaformer.py`` and ``hybrid.py``.

    Args:
        token_mixers: of the blocks in each stage: identity, random, pooling, conv, attention or
            spatial fc.
        norm: what the blocks normalise over: "sample", all of it, or "channels" at each place.
        mlp_head: the classifier is an MLP, else it is linear.
        hybrid: the blocks are PoolFormer's but for mixers and norm, else they are MetaFormer's.
        position: of a hybrid, the stage before which a position embedding is added, if any.
    """

    token_mixers: tuple[str, ...]
    norm: str
    mlp_head: bool = False
    hybrid: bool = False
    position: int | None = None

    @property
    def stage_numbers(self) -> tuple[int, ...]:
        """Where a hybrid's ``network`` has the blocks of each stage.

        The downsamples stand between them, and the position embedding after one of them.
        """
        position = 4 if self.position is None else self.position
        return tuple(2 * stage + (stage >= position) for stage in range(4))


def _hybrid(*token_mixers: str, norm: str, position: int | None = None) -> Family:
    return Family(token_mixers, norm, hybrid=True, position=position)


FAMILIES = MappingProxyType(
    {
        "identityformer": Family(("identity",) * 4, "sample"),
        "randformer": Family(("identity", "identity", "random", "random"), "sample"),
        "poolformerv2": Family(("pooling",) * 4, "sample"),
        "convformer": Family(("conv",) * 4, "channels", mlp_head=True),
        "caformer": Family(("conv", "conv", "attention", "attention"), "channels", mlp_head=True),
        "metaformer_id": _hybrid(*("identity",) * 4, norm="sample"),
        "metaformer_pppa": _hybrid(*("pooling",) * 3, "attention", norm="channels", position=3),
        "metaformer_ppaa": _hybrid(
            "pooling", "pooling", "attention", "attention", norm="channels", position=2
        ),
        "metaformer_pppf": _hybrid(*("pooling",) * 3, "spatial fc", norm="sample"),
        "metaformer_ppff": _hybrid("pooling", "pooling", "spatial fc", "spatial fc", norm="sample"),
    }
)


@dataclass(frozen=True)
class Variant:
    """One model.

    Args:
        depths: blocks in each of the four stages.
        dims: channels of each stage.
        drop_path_rate: stochastic depth rate of the official recipe.
        crop_pct: share of the resized image's side that the evaluation crop keeps.
        parameters: number of parameters with its classes and 3 input channels.
        gmacs: multiply-accumulates at its image size, in billions, published or by fvcore.
        published_top1: ImageNet-1K top-1 in percent, published by the authors; None for
            ImageNet-21K, for which they publish none.
        layer_scale_init: initial value of both layer scales of a PoolFormer or hybrid; None for a
            MetaFormer.
        image_size: edge of its images.
        num_classes: 1000, or 21,841 for ImageNet-21K.
        head_drop_rate: dropout in the MLP head of the official recipe.
        family: a key of FAMILIES for a MetaFormer or hybrid, None for PoolFormer itself.
    """

    depths: tuple[int, int, int, int]
    dims: tuple[int, int, int, int]
    drop_path_rate: float
    crop_pct: float
    parameters: int
    gmacs: float
    published_top1: float | None
    layer_scale_init: float | None = None
    image_size: int = 224
    num_classes: int = 1000
    head_drop_rate: float = 0.0
    family: str | None = None

    @property
    def is_metaformer(self) -> bool:
        """Whether it is one of "MetaFormer Baselines", else a PoolFormer or a hybrid of it."""
        return self.family is not None and not FAMILIES[self.family].hybrid

    @property
    def sized_part(self) -> str:
        """The part of the network that is made for one image size, empty if none is."""
        if self.family is None:
            return ""
        family = FAMILIES[self.family]
        if family.position is not None:
            return "position embedding"
        parts = {"random": "random mixing", "spatial fc": "spatial fc"}
        return next((parts[mixer] for mixer in family.token_mixers if mixer in parts), "")

    @property
    def only_size(self) -> int | None:
        """The only image size the network takes, None for any."""
        return self.image_size if self.sized_part else None

    def same_network(self, other: Variant) -> bool:
        """Whether one's weights fit the other, classifiers apart."""
        return (self.family, self.depths, self.dims) == (other.family, other.depths, other.dims)


_DEPTHS = {
    "s12": (2, 2, 6, 2),
    "s24": (4, 4, 12, 4),
    "s36": (6, 6, 18, 6),
    "m36": (6, 6, 18, 6),
    "m48": (8, 8, 24, 8),
}
_DEEP = {"s18": (3, 3, 9, 3), "s36": (3, 12, 18, 3), "m36": (3, 12, 18, 3), "b36": (3, 12, 18, 3)}
_SMALL = (64, 128, 320, 512)
_DIMS = {"s": _SMALL, "m": (96, 192, 384, 768)}
_DEEP_DIMS = {"s": _SMALL, "m": (96, 192, 384, 576), "b": (128, 256, 512, 768)}


def _plain(size: str, *facts: float, layer_scale: float | None = None, family: str = "") -> Variant:
    """A model of PoolFormer's depths and dims."""
    rate, crop_pct, parameters, gmacs, top1 = facts
    return Variant(
        _DEPTHS[size],
        _DIMS[size[0]],
        rate,
        crop_pct,
        int(parameters),
        gmacs,
        top1,
        layer_scale_init=layer_scale,
        family=family or None,
    )


def _hybrid_s12(mixers: str, *facts: float) -> Variant:
    """PoolFormer-S12 with other token mixers."""
    return _plain("s12", 0.1, *facts, layer_scale=1e-5, family=f"metaformer_{mixers}")


def _deep(family: str, size: str, *facts: float) -> dict[str, Variant]:
    """A model of ConvFormer's depths and dims, at 224 px and fine-tuned at 384."""
    rate, head_rate, parameters, gmacs, top1, gmacs_384, top1_384 = facts
    at_224 = Variant(
        _DEEP[size],
        _DEEP_DIMS[size[0]],
        rate,
        1.0,
        int(parameters),
        gmacs,
        top1,
        head_drop_rate=head_rate,
        family=family,
    )
    at_384 = replace(at_224, image_size=384, gmacs=gmacs_384, published_top1=top1_384)
    return {f"{family}_{size}": at_224, f"{family}_{size}_384": at_384}


def _from_21k(base: dict[str, Variant], parameters: int, *top1: float) -> dict[str, Variant]:
    """The largest model trained on ImageNet-21K: as it is, and fine-tuned on ImageNet-1K."""
    (name, at_224), (_, at_384) = base.items()
    return base | {
        f"{name}_in21ft1k": replace(at_224, published_top1=top1[0]),
        f"{name}_384_in21ft1k": replace(at_384, published_top1=top1[1]),
        f"{name}_in21k": replace(
            at_224, num_classes=21_841, parameters=parameters, published_top1=None
        ),
    }


# Drop path (0.1 of a hybrid), crop, parameters, MACs, top-1; in the lower half drop path, dropout
# in the head, parameters, and MACs and top-1 at 224 and 384 px.
_TABLE = {
    "poolformer_s12": _plain("s12", 0.1, 0.90, 11_915_176, 1.82, 77.2, layer_scale=1e-5),
    "poolformer_s24": _plain("s24", 0.1, 0.90, 21_388_968, 3.41, 80.3, layer_scale=1e-5),
    "poolformer_s36": _plain("s36", 0.2, 0.90, 30_862_760, 5.00, 81.4, layer_scale=1e-6),
    "poolformer_m36": _plain("m36", 0.3, 0.95, 56_172_520, 8.80, 82.1, layer_scale=1e-6),
    "poolformer_m48": _plain("m48", 0.4, 0.95, 73_473_448, 11.59, 82.5, layer_scale=1e-6),
    "metaformer_id_s12": _hybrid_s12("id", 0.90, 11_915_176, 1.8, 74.3),
    "metaformer_pppa_s12_224": _hybrid_s12("pppa", 0.95, 14_038_440, 1.9, 78.3),
    "metaformer_ppaa_s12_224": _hybrid_s12("ppaa", 0.95, 16_535_592, 2.5, 81.0),
    "metaformer_pppf_s12_224": _hybrid_s12("pppf", 0.90, 11_919_978, 1.8, 77.5),
    "metaformer_ppff_s12_224": _hybrid_s12("ppff", 0.95, 12_150_474, 1.9, 77.9),
    "identityformer_s12": _plain("s12", 0.1, 1.0, 11_891_712, 1.8, 74.6, family="identityformer"),
    "identityformer_s24": _plain("s24", 0.1, 1.0, 21_341_464, 3.4, 78.2, family="identityformer"),
    "identityformer_s36": _plain("s36", 0.2, 1.0, 30_791_216, 5.0, 79.3, family="identityformer"),
    "identityformer_m36": _plain("m36", 0.3, 1.0, 56_077_168, 8.8, 80.0, family="identityformer"),
    "identityformer_m48": _plain("m48", 0.4, 1.0, 73_346_056, 11.5, 80.4, family="identityformer"),
    "randformer_s12": _plain("s12", 0.1, 1.0, 12_127_010, 1.9, 76.6, family="randformer"),
    "randformer_s24": _plain("s24", 0.1, 1.0, 21_812_060, 3.5, 78.2, family="randformer"),
    "randformer_s36": _plain("s36", 0.2, 1.0, 31_497_110, 5.2, 79.5, family="randformer"),
    "randformer_m36": _plain("m36", 0.3, 1.0, 56_783_062, 9.0, 81.2, family="randformer"),
    "randformer_m48": _plain("m48", 0.3, 1.0, 74_287_248, 11.9, 81.4, family="randformer"),
    "poolformerv2_s12": _plain("s12", 0.1, 1.0, 11_891_712, 1.8, 78.0, family="poolformerv2"),
    "poolformerv2_s24": _plain("s24", 0.1, 1.0, 21_341_464, 3.4, 80.7, family="poolformerv2"),
    "poolformerv2_s36": _plain("s36", 0.2, 1.0, 30_791_216, 5.0, 81.6, family="poolformerv2"),
    "poolformerv2_m36": _plain("m36", 0.3, 1.0, 56_077_168, 8.8, 82.2, family="poolformerv2"),
    "poolformerv2_m48": _plain("m48", 0.4, 1.0, 73_346_056, 11.5, 82.6, family="poolformerv2"),
    **_deep("convformer", "s18", 0.2, 0.0, 26_774_448, 3.9, 83.0, 11.6, 84.4),
    **_deep("convformer", "s36", 0.3, 0.0, 40_012_152, 7.6, 84.1, 22.4, 85.4),
    **_deep("convformer", "m36", 0.4, 0.0, 57_051_640, 12.8, 84.5, 37.7, 85.6),
    **_from_21k(
        _deep("convformer", "b36", 0.6, 0.0, 99_882_616, 22.6, 84.8, 66.5, 85.7),
        163_927_009,
        87.0,
        87.6,
    ),
    **_deep("caformer", "s18", 0.15, 0.0, 26_341_656, 4.1, 83.6, 13.4, 85.0),
    **_deep("caformer", "s36", 0.3, 0.4, 39_297_102, 8.0, 84.5, 26.0, 85.7),
    **_deep("caformer", "m36", 0.4, 0.4, 56_204_878, 13.2, 85.2, 42.0, 86.2),
    **_from_21k(
        _deep("caformer", "b36", 0.6, 0.5, 98_753_614, 23.2, 85.5, 72.2, 86.4),
        162_798_007,
        87.4,
        88.1,
    ),
}
VARIANTS = MappingProxyType(_TABLE)  # read by all, written by add_variant alone


@dataclass(frozen=True)
class Segmenter:
    """A model of semantic segmentation, which is a Semantic FPN on a backbone.

    Args:
        backbone: the variant it is built on.
        published_miou: ADE20K val mIoU in percent, published by the authors, if they did.
    """

    backbone: str
    published_miou: float | None = None


_MIOU = {
    "poolformer_s12": 37.2,
    "poolformer_s24": 40.3,
    "poolformer_s36": 42.0,
    "poolformer_m36": 42.4,
    "poolformer_m48": 42.7,
}
PREFIX = "semantic_fpn_"
# On every variant that takes images of any size.
_SEGMENTERS = {
    PREFIX + name: Segmenter(name, _MIOU.get(name))
    for name, variant in VARIANTS.items()
    if variant.only_size is None
}
SEGMENTERS = MappingProxyType(_SEGMENTERS)


@dataclass(frozen=True)
class Detector:
    """A model of object detection.

    Args:
        backbone: the variant it is built on.
        masks: it gives the pixels of each object, too: a Mask R-CNN, else a RetinaNet.
        published_box_ap: COCO val2017 box AP in percent, published by the authors; None where
            there is none.
        published_mask_ap: the same of masks.
    """

    backbone: str
    masks: bool = False
    published_box_ap: float | None = None
    published_mask_ap: float | None = None


_DETECTORS = {
    "retinanet_poolformer_s12": Detector("poolformer_s12", False, 36.2),
    "retinanet_poolformer_s24": Detector("poolformer_s24", False, 38.9),
    "retinanet_poolformer_s36": Detector("poolformer_s36", False, 39.5),
    "mask_rcnn_poolformer_s12": Detector("poolformer_s12", True, 37.3, 34.6),
    "mask_rcnn_poolformer_s24": Detector("poolformer_s24", True, 40.1, 37.0),
    "mask_rcnn_poolformer_s36": Detector("poolformer_s36", True, 41.0, 37.7),
}
DETECTORS = MappingProxyType(_DETECTORS)

POOLFORMERS = tuple(name for name, variant in VARIANTS.items() if variant.family is None)


def add_variant(name: str, variant: Variant) -> None:
    """Put a further variant into the table; see :func:`registry.register`.

    Raises:
        ValueError: the name is taken.
    """
    if name in _TABLE:
        raise ValueError(f"variant: found {name!r} in the table, expected a new name")
    _TABLE[name] = variant


def add_segmenter(backbone: str) -> str:
    """Put the segmentation model on a further variant into the table; give its name."""
    _SEGMENTERS[PREFIX + backbone] = Segmenter(backbone, None)
    return PREFIX + backbone


def add_detectors(backbone: str) -> tuple[str, str]:
    """Put the detectors on a further variant into the table; give their names."""
    names = f"retinanet_{backbone}", f"mask_rcnn_{backbone}"
    for name, masks in zip(names, (False, True), strict=True):
        _DETECTORS[name] = Detector(backbone, masks)
    return names


def find_variant(name: str) -> Variant:
    """Give the variant of that name.

    Raises:
        UserError: there is none, or it is a segmentation model or a detector.
    """
    _refuse_detector(name, f"a classifier such as {_backbone(name)!r}, or task detection")
    if name in SEGMENTERS:
        raise UserError(
            f"model: found {name!r}, a segmentation model, expected a classifier such as "
            f"{SEGMENTERS[name].backbone!r}, or task segmentation"
        )
    if name not in VARIANTS:
        near = ", ".join(difflib.get_close_matches(name, VARIANTS, 5, 0.4)) or "poolformer_s12"
        raise UserError(
            f"model: found {name!r}, expected one of the {len(VARIANTS)} that python -m "
            f"mindcv_poolformer.models list shows, such as {near}"
        )
    return VARIANTS[name]


def find_segmenter(name: str) -> Segmenter:
    """Give the segmentation model of that name.

    Raises:
        UserError: there is none, or it is a classifier or a detector.
    """
    _refuse_detector(name, "a segmentation model, or task detection")
    if name in SEGMENTERS:
        return SEGMENTERS[name]
    if f"{PREFIX}{name}" in SEGMENTERS:
        raise UserError(
            f"model: found {name!r}, a classifier, with task segmentation, expected a segmentation "
            f"model such as {PREFIX + name!r}"
        )
    near = ", ".join(difflib.get_close_matches(name, SEGMENTERS, 3, 0.4))
    raise UserError(
        f"model: found {name!r}, expected one of the {len(SEGMENTERS)} segmentation models, such "
        f"as {near or 'semantic_fpn_poolformer_s12'}"
    )


def find_detector(name: str) -> Detector:
    """Give the detector of that name.

    Raises:
        UserError: there is none, or it is a classifier or a segmentation model.
    """
    if name in DETECTORS:
        return DETECTORS[name]
    kind = "a segmentation model" if name in SEGMENTERS else "a classifier"
    told = f", {kind}, with task detection" if name in SEGMENTERS or name in VARIANTS else ""
    near = difflib.get_close_matches(name, DETECTORS, 3, 0.4) or [next(iter(DETECTORS))]
    raise UserError(
        f"model: found {name!r}{told}, expected one of the {len(DETECTORS)} detectors, such as "
        f"{', '.join(near)}"
    )


def _backbone(name: str) -> str:
    return DETECTORS[name].backbone if name in DETECTORS else name


def _refuse_detector(name: str, expected: str) -> None:
    if name in DETECTORS:
        raise UserError(f"model: found {name!r}, a detector, expected {expected}")


def check_image_size(model: str, image_size: int, key: str = "image_resize") -> None:
    """Refuse images that a variant cannot take, a part of whose network is made for one size.

    Args:
        model: name of the variant.
        image_size: edge of its images.
        key: what told the size, for the error.

    Raises:
        UserError: there is no such variant, or it takes another size alone.
    """
    variant = find_variant(model)
    if variant.only_size not in (None, image_size):
        raise UserError(
            f"{key}: found {image_size} with model {model}, expected {variant.only_size}: its "
            f"{variant.sized_part} is made for that size"
        )
