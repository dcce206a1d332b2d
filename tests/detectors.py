"""Small detectors whose every parameter matters."""

from __future__ import annotations

from typing import Any

from official import load_official_weights

from mindcv_poolformer.models import RetinaNet
from mindcv_poolformer.models.registry import build
from mindcv_poolformer.models.variants import Variant


def small_detector(family: str | None = None, **settings: Any) -> RetinaNet:
    """A RetinaNet on four blocks of a family, PoolFormer's for None."""
    layer_scale = 1e-5 if family is None or family.startswith("metaformer") else None
    variant = Variant(
        (1, 1, 1, 1),
        (8, 8, 32, 32),
        drop_path_rate=0,
        crop_pct=1,
        parameters=0,
        gmacs=0,
        published_top1=None,
        layer_scale_init=layer_scale,
        family=family,
    )
    backbone = build(variant, features_only=True, out_indices=(1, 2, 3))
    return load_official_weights(RetinaNet(backbone, **{"channels": 8, **settings}))
