"""The networks as they serve: the same logits from fewer passes over memory."""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn

from .classifier import POOL_NORM, StagedClassifier
from .deploy_hybrid import DeployedHybrid
from .deploy_metaformer import DeployedMetaFormer
from .folding import embed_like, fill, mlp_of, values_of
from .hybrid import Hybrid
from .kernels import center, from_channels_first, per_channel, spatial_mean, standardize
from .layers import PatchEmbed, PoolFormerBlock, Pooling
from .metaformer import MetaFormer
from .poolformer import PoolFormer


def to_deploy(model: StagedClassifier) -> Deployed:
    """Fold a classifier's norms and layer scales into its weights; the model itself is left alone.

    Let GroupNorm be gn(x) = g (x - m) / s + b with a sample's mean m and deviation s.

    1. A mean keeps constants, so pool(gn1(x)) - gn1(x) = g1 (pool(x) - x) / s: m and b1 go.
    2. The first half of a block is x + (ls1 g1) (pool(x) - x) / s: one vector, and no norm.
    3. W1 gn2(x) + c1 = (W1 g2) (x - m) / s + (W1 b2 + c1): a norm without scale and shift.
    4. ls2 (W2 h + c2) = (ls2 W2) h + ls2 c2: no layer scale.
    5. W mean(gn(x)) + c = (W g) (mean(x) - m) / s + (W b + c): the last norm works on (N, C).

    A hybrid's is told in :class:`DeployedHybrid`, a MetaFormer's in :class:`DeployedMetaFormer`.

    Raises:
        ValueError: the model gives feature maps, or has no classifier.
    """
    if model.features_only or model.num_classes == 0:
        raise ValueError("to_deploy: found a network without classifier, expected one with it")
    if isinstance(model, Hybrid):
        return DeployedHybrid(model)
    return DeployedMetaFormer(model) if isinstance(model, MetaFormer) else DeployedPoolFormer(model)


class DeployedPoolFormer(nn.Cell):
    """What :func:`to_deploy` makes of ``model``: images (N, C, H, W) to logits (N, classes)."""

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
        weight, bias = values_of(model.head.weight, model.head.bias)
        gamma, beta = values_of(model.norm.gamma, model.norm.beta)
        self.norms_map = model.head_order != POOL_NORM
        self.eps = model.norm.eps if self.norms_map else model.norm.epsilon
        self.num_classes = model.num_classes
        self.head = nn.Dense(model.num_features, model.num_classes)
        fill(self.head.weight, weight * gamma)
        fill(self.head.bias, weight @ beta + bias)
        self.set_train(False)

    def construct(self, x: Tensor) -> Tensor:
        x = self.patch_embed(from_channels_first(x))
        for index, part in enumerate(self.network):
            if index % 2 == 1:
                x = part(x)
            else:
                for block in part:
                    x = block(x)
        return self.head(self._pool(x).astype(x.dtype))

    def _pool(self, x: Tensor) -> Tensor:
        """Give the normalised mean over height and width, (N, C), in float32."""
        if self.norms_map:
            centred, rstd = center(x, self.eps)
            return spatial_mean(centred) * rstd.reshape(-1, 1)
        return standardize(spatial_mean(x), self.eps)


class DeployedBlock(nn.Cell):
    """A block without norm parameters and layer scales; see :func:`to_deploy`."""

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


Deployed = DeployedPoolFormer | DeployedHybrid | DeployedMetaFormer
