"""A PoolFormer as it serves."""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn

from ..classifier import POOL_NORM
from ..parts.layers import PatchEmbed, PoolFormerBlock
from ..parts.layout import from_channels_first, per_channel, spatial_mean
from ..parts.mixers import Pooling
from ..parts.norms import center, standardize
from ..poolformer import PoolFormer
from .folding import embed_like, fill, mlp_of, values_of


class DeployedPoolFormer(nn.Cell):
    """What ``to_deploy`` makes of ``model``: images (N, C, H, W) to logits (N, classes).

    Of a model with ``features_only`` there are the maps of :meth:`stage_maps` alone.
    """

    def __init__(self, model: PoolFormer) -> None:
        super().__init__()
        self.patch_embed = _copy(model.patch_embed)
        self.network = nn.CellList(
            [
                nn.CellList([DeployedBlock(block) for block in part])
                if isinstance(part, nn.CellList)
                else _copy(part)
                for part in model.network
            ]
        )
        if not model.features_only:
            self._add_head(model)
        self.set_train(False)

    def _add_head(self, model: PoolFormer) -> None:
        weight, bias = values_of(model.head.weight, model.head.bias)
        gamma, beta = values_of(model.norm.gamma, model.norm.beta)
        self.norms_map = model.head_order != POOL_NORM
        self.eps = model.norm.eps if self.norms_map else model.norm.epsilon
        self.num_classes = model.num_classes
        self.head = nn.Dense(model.num_features, model.num_classes)
        fill(self.head.weight, weight * gamma)
        fill(self.head.bias, weight @ beta + bias)

    def construct(self, x: Tensor) -> Tensor:
        x = self.stage_maps(x)[-1]
        return self.head(self._pool(x).astype(x.dtype))

    def stage_maps(self, x: Tensor) -> list[Tensor]:
        """Give the map after each stage as the device likes it, without a norm of its own."""
        x = self.patch_embed(from_channels_first(x))
        maps = []
        for index, part in enumerate(self.network):
            if index % 2 == 1:
                x = part(x)
            else:
                for block in part:
                    x = block(x)
                maps.append(x)
        return maps

    def _pool(self, x: Tensor) -> Tensor:
        """Give the normalised mean over height and width, (N, C), in float32."""
        if self.norms_map:
            centred, rstd = center(x, self.eps)
            return spatial_mean(centred) * rstd.reshape(-1, 1)
        return standardize(spatial_mean(x), self.eps)


class DeployedBlock(nn.Cell):
    """A block without norm parameters and layer scales; see ``to_deploy``."""

    def __init__(self, block: PoolFormerBlock) -> None:
        super().__init__()
        scale_1, gamma_1 = values_of(block.layer_scale_1, block.norm1.gamma)
        self.eps = block.norm1.eps
        self.token_mixer = Pooling()
        self.mixer_scale = Parameter(Tensor((scale_1 * gamma_1).astype(np.float32)))
        self.mlp = mlp_of(block)

    def construct(self, x: Tensor) -> Tensor:
        _, rstd = center(x, self.eps)
        mixed = per_channel(self.mixer_scale) * rstd * self.token_mixer(x)
        x = x + mixed.astype(x.dtype)
        return x + self.mlp(standardize(x, self.eps).astype(x.dtype))


def _copy(embed: PatchEmbed) -> PatchEmbed:
    return embed_like(embed.proj, embed.proj.weight.asnumpy())
