"""A hybrid as it serves: norms and layer scales folded into the layers behind them."""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn

from ..hybrid import BiasedAttention, Hybrid
from ..parts.layers import PatchEmbed, PoolFormerBlock
from ..parts.layout import (
    channels_last,
    from_channels_first,
    lay_channels_last,
    lay_for_device,
    per_channel,
    spatial_mean,
)
from ..parts.mixers import Attend
from ..parts.norms import GroupNorm, standardize, standardize_along
from .folding import copy_of, embed_like, mlp_of, values_of
from .metaformer import Linear


class DeployedHybrid(nn.Cell):
    """What to_deploy makes of a hybrid: images (N, C, H, W) to logits (N, classes).

    Let n(x) = g z + b be a norm, z the standardised map, and ls a layer scale.

    1. Pooling, identity and a spatial fc mix places, of each channel for itself, so they commute
       with a factor for each channel: ls m(g z + b) = m((ls g) z + ls b).
    2. Attention's first layer takes g, b and its own scale, its last layer ls.
    3. The MLP takes norm and layer scale as PoolFormer's does, and the classifier the last norm.

    Of a model with ``features_only`` there are the maps of :meth:`stage_maps` alone.
    """

    def __init__(self, model: Hybrid) -> None:
        super().__init__()
        self.patch_embed = _copy(model.patch_embed)
        self.network = nn.CellList([_copy(part) for part in model.network])
        self.stage_numbers = model.stage_numbers
        if not model.features_only:
            self.standardize = Standardize(model.norm)
            weight, bias, gamma, beta = values_of(
                model.head.weight, model.head.bias, model.norm.gamma, model.norm.beta
            )
            self.head = Linear(weight * gamma, weight @ beta + bias)
            self.num_classes = model.num_classes
        self.set_train(False)

    def construct(self, x: Tensor) -> Tensor:
        return self.head(spatial_mean(self.standardize(self.stage_maps(x)[-1])))

    def stage_maps(self, x: Tensor) -> list[Tensor]:
        """Give the map after each stage as the device likes it, without a norm of its own."""
        x = self.patch_embed(from_channels_first(x))
        maps = []
        for index, part in enumerate(self.network):
            if index in self.stage_numbers:
                for block in part:
                    x = block(x)
                maps.append(x)
            else:
                x = part(x)
        return maps


class Standardize(nn.Cell):
    """A norm without scale and shift.

    Args:
        norm: a GroupNorm or a LayerNormChannel.
    """

    def __init__(self, norm: nn.Cell) -> None:
        super().__init__()
        self.over_sample = isinstance(norm, GroupNorm)
        self.eps = norm.eps

    def construct(self, x: Tensor) -> Tensor:
        if self.over_sample:
            return standardize(x, self.eps).astype(x.dtype)
        return standardize_along(x, -1 if channels_last() else 1, self.eps).astype(x.dtype)


class DeployedHybridBlock(nn.Cell):
    """A block without norm parameters and layer scales; see :class:`DeployedHybrid`."""

    def __init__(self, block: PoolFormerBlock) -> None:
        super().__init__()
        self.standardize = Standardize(block.norm1)
        attends = isinstance(block.token_mixer, BiasedAttention)
        self.mixer = (DeployedBiasedAttention if attends else DeployedPlacesMixer)(block)
        self.mlp = mlp_of(block)

    def construct(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.standardize(x))
        return x + self.mlp(self.standardize(x))


class DeployedPlacesMixer(nn.Cell):
    """Pooling, identity or a spatial fc behind a scale and shift of each channel."""

    def __init__(self, block: PoolFormerBlock) -> None:
        super().__init__()
        layer_scale, gamma, beta = values_of(
            block.layer_scale_1, block.norm1.gamma, block.norm1.beta
        )
        self.scale = Parameter(Tensor((layer_scale * gamma).astype(np.float32)))
        self.shift = Parameter(Tensor((layer_scale * beta).astype(np.float32)))
        self.mixer = copy_of(block.token_mixer)

    def construct(self, x: Tensor) -> Tensor:
        scale, shift = self.scale.astype(x.dtype), self.shift.astype(x.dtype)
        return self.mixer(per_channel(scale) * x + per_channel(shift))


class DeployedBiasedAttention(nn.Cell):
    """Self-attention with the scale and shift before it, and the layer scale behind it, in it."""

    def __init__(self, block: PoolFormerBlock) -> None:
        super().__init__()
        mixer = block.token_mixer
        layer_scale, gamma, beta = values_of(
            block.layer_scale_1, block.norm1.gamma, block.norm1.beta
        )
        qkv, proj, bias = values_of(mixer.qkv.weight, mixer.proj.weight, mixer.proj.bias)
        qkv = qkv * np.repeat([mixer.attend.scale, 1, 1], len(qkv) // 3)[:, None]
        self.qkv = Linear(qkv * gamma, qkv @ beta)
        self.attend = Attend(1.0)
        self.proj = Linear(layer_scale[:, None] * proj, layer_scale * bias)

    def construct(self, x: Tensor) -> Tensor:
        return lay_for_device(self.proj(self.attend(self.qkv(lay_channels_last(x)))))


def _copy(part: nn.Cell) -> nn.Cell:
    if isinstance(part, nn.CellList):
        return nn.CellList([DeployedHybridBlock(block) for block in part])
    if isinstance(part, PatchEmbed):
        return embed_like(part.proj, part.proj.weight.asnumpy())
    return copy_of(part)
