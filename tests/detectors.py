"""Small detectors whose every parameter matters."""

from __future__ import annotations

from typing import Any

from official import load_official_weights

from mindcv_poolformer.models import MaskRCNN, RetinaNet, StagedClassifier
from mindcv_poolformer.models.registry import build
from mindcv_poolformer.models.variants import Variant

Depths = tuple[int, int, int, int]
ONE_EACH: Depths = (1, 1, 1, 1)


def small_detector(
    family: str | None = None, depths: Depths = ONE_EACH, **settings: Any
) -> RetinaNet:
    """A RetinaNet on blocks of a family, PoolFormer's for None."""
    backbone = small_backbone(family, (1, 2, 3), depths)
    return load_official_weights(RetinaNet(backbone, **{"channels": 8, **settings}))


def small_mask_rcnn(
    family: str | None = None, depths: Depths = ONE_EACH, **settings: Any
) -> MaskRCNN:
    """A Mask R-CNN on blocks of a family, PoolFormer's for None."""
    backbone = small_backbone(family, (0, 1, 2, 3), depths)
    return load_official_weights(MaskRCNN(backbone, **{"channels": 8, **settings}))


def small_backbone(
    family: str | None, out_indices: tuple[int, ...], depths: Depths
) -> StagedClassifier:
    layer_scale = 1e-5 if family is None or family.startswith("metaformer") else None
    variant = Variant(
        depths,
        (8, 8, 32, 32),
        drop_path_rate=0,
        crop_pct=1,
        parameters=0,
        gmacs=0,
        published_top1=None,
        layer_scale_init=layer_scale,
        family=family,
    )
    return build(variant, features_only=True, out_indices=out_indices)
