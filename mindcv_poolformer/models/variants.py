"""The table of PoolFormer variants: every fact about a variant stands here and nowhere else.

Source: Yu et al., "MetaFormer Is Actually What You Need for Vision", arXiv 2111.11418, table 1
and appendix; training settings and ImageNet-1K top-1 as published in sail-sg/poolformer.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from ..runtime.errors import UserError


@dataclass(frozen=True)
class Variant:
    """One PoolFormer.

    Args:
        depths: blocks in each of the four stages.
        dims: channels of each stage.
        layer_scale_init: initial value of both layer scales.
        drop_path_rate: stochastic depth rate of the official recipe.
        crop_pct: share of the resized image's side that the evaluation crop keeps.
        parameters: number of parameters with 1000 classes and 3 input channels.
        gmacs: multiply-accumulates at 224 px, in billions, as counted by fvcore.
        published_top1: ImageNet-1K top-1 in percent, published by the authors.
    """

    depths: tuple[int, int, int, int]
    dims: tuple[int, int, int, int]
    layer_scale_init: float
    drop_path_rate: float
    crop_pct: float
    parameters: int
    gmacs: float
    published_top1: float


_SMALL = (64, 128, 320, 512)
_MEDIUM = (96, 192, 384, 768)

VARIANTS = MappingProxyType(
    {
        "poolformer_s12": Variant((2, 2, 6, 2), _SMALL, 1e-5, 0.1, 0.90, 11_915_176, 1.82, 77.2),
        "poolformer_s24": Variant((4, 4, 12, 4), _SMALL, 1e-5, 0.1, 0.90, 21_388_968, 3.41, 80.3),
        "poolformer_s36": Variant((6, 6, 18, 6), _SMALL, 1e-6, 0.2, 0.90, 30_862_760, 5.00, 81.4),
        "poolformer_m36": Variant((6, 6, 18, 6), _MEDIUM, 1e-6, 0.3, 0.95, 56_172_520, 8.80, 82.1),
        "poolformer_m48": Variant((8, 8, 24, 8), _MEDIUM, 1e-6, 0.4, 0.95, 73_473_448, 11.59, 82.5),
    }
)


def find_variant(name: str) -> Variant:
    """Give the variant of that name.

    Raises:
        UserError: there is none.
    """
    if name not in VARIANTS:
        raise UserError(f"model: found {name!r}, expected one of {', '.join(VARIANTS)}")
    return VARIANTS[name]
