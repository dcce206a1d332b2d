"""The neck of dense prediction as it serves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mindspore import Parameter, Tensor, nn

from ..dense.on_backbone import OnBackbone
from ..parts.layout import per_channel
from .folding import copy_of, fill, values_of
from .hybrid import DeployedHybrid, Standardize
from .metaformer import DeployedMetaFormer
from .poolformer import DeployedPoolFormer

Backbone = DeployedPoolFormer | DeployedHybrid | DeployedMetaFormer


class DeployedFPN(nn.Cell):
    """An FPN and the maps' own norms before it: the map of each stage to the FPN's levels.

    Let g z + b be a norm, z the standardised map: W (g z + b) + c of the 1x1 convolution behind it
    is (W g) z + (W b + c). The last map's norm stays whole where coarser levels come of it by a 3x3
    convolution, which sees zeros beyond the border and not b.

    Args:
        model: left alone.
    """

    def __init__(self, model: OnBackbone) -> None:
        super().__init__()
        norms = model.backbone.feature_norms
        self.out_indices = model.backbone.out_indices
        self.fpn = copy_of(model.neck)
        kept = len(norms) - 1 if self.fpn.coarser_levels else len(norms)
        self.norms = nn.CellList(
            [_deployed(norm, whole=index == kept) for index, norm in enumerate(norms)]
        )
        for module, norm, deployed in zip(self.fpn.lateral_convs, norms, self.norms, strict=True):
            if isinstance(deployed, Standardize):
                _take_norm(module.conv, norm)

    def construct(self, stages: Sequence[Tensor]) -> list[Tensor]:
        return self.fpn([norm(stages[i]) for i, norm in zip(self.out_indices, self.norms)])


class WholeNorm(nn.Cell):
    """A norm with its scale and shift."""

    def __init__(self, norm: nn.Cell) -> None:
        super().__init__()
        self.standardize = Standardize(norm)
        self.gamma, self.beta = (
            Parameter(Tensor(values.astype(np.float32)))
            for values in values_of(norm.gamma, norm.beta)
        )

    def construct(self, x: Tensor) -> Tensor:
        return self.standardize(x) * per_channel(self.gamma) + per_channel(self.beta)


def _deployed(norm: nn.Cell, whole: bool) -> nn.Cell:
    if isinstance(norm, nn.Identity):
        return nn.Identity()
    return WholeNorm(norm) if whole else Standardize(norm)


def _take_norm(conv: nn.Conv2d, norm: nn.Cell) -> None:
    """Take the scale and shift of the norm before a 1x1 convolution into it."""
    weight, bias, gamma, beta = values_of(conv.weight, conv.bias, norm.gamma, norm.beta)
    fill(conv.weight, weight * gamma[:, None, None])
    fill(conv.bias, weight[:, :, 0, 0] @ beta + bias)
