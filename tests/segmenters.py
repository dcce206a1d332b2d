"""Small segmentation networks whose every parameter matters."""

from __future__ import annotations

import numpy as np
from mindspore import Tensor
from official import load_official_weights

from mindcv_poolformer.models import SemanticFPN
from mindcv_poolformer.models.registry import build
from mindcv_poolformer.models.variants import Variant


def small_segmenter(
    family: str | None = None,
    num_classes: int = 5,
    depths: tuple[int, int, int, int] = (1, 1, 1, 1),
) -> SemanticFPN:
    """On blocks of a family, PoolFormer's for None; norms far from 1 and 0."""
    metaformer = family is not None and not family.startswith("metaformer")
    variant = Variant(
        depths,
        (8, 16, 32, 32),
        drop_path_rate=0,
        crop_pct=1,
        parameters=0,
        gmacs=0,
        published_top1=None,
        layer_scale_init=None if metaformer else 1e-5,
        family=family,
    )
    backbone = build(variant, features_only=True)
    network = SemanticFPN(backbone, num_classes=num_classes, neck_channels=16, head_channels=12)
    return scattered(load_official_weights(network)).set_train(False)


def scattered(network: SemanticFPN) -> SemanticFPN:
    """Draw the norms' parameters and running statistics."""
    rng = np.random.default_rng(7)
    bounds = {"gamma": (0.5, 1.5), "beta": (-1, 1), "moving_mean": (-1, 1)}
    bounds["moving_variance"] = (0.5, 2)
    for parameter in network.get_parameters():
        kind = parameter.name.rpartition(".")[2]
        if kind in bounds:
            values = rng.uniform(*bounds[kind], parameter.shape)
            parameter.set_data(Tensor(values.astype(np.float32)))
    return network
