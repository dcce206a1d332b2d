"""The hybrids of PoolFormer's paper: attention, spatial MLPs or nothing in the place of pooling.

Yu et al., "MetaFormer Is Actually What You Need for Vision", arXiv 2111.11418, table 5. Parameter
names are those of the official code (sail-sg/poolformer, ``models/metaformer.py``), but for
MindSpore's ``gamma`` and ``beta`` of norms. Maps lie as the device likes them, see
``parts/layout.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from .classifier import NORM_POOL, StagedClassifier
from .parts.layers import PatchEmbed, PoolFormerBlock
from .parts.layout import (
    channels_last,
    from_channels_first,
    lay_channels_last,
    lay_for_device,
    per_channel,
)
from .parts.mixers import GRIDS, Attention, Pooling
from .parts.norms import GroupNorm, standardize_along
from .poolformer import initialize_parts
from .variants import FAMILIES


class LayerNormChannel(nn.Cell):
    """Each place of a map is normalised over its channels, eps 1e-5."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.eps = 1e-5
        self.gamma = Parameter(Tensor(np.ones(channels, np.float32)))
        self.beta = Parameter(Tensor(np.zeros(channels, np.float32)))

    def construct(self, x: Tensor) -> Tensor:
        normed = standardize_along(x, -1 if channels_last() else 1, self.eps)
        return (normed * per_channel(self.gamma) + per_channel(self.beta)).astype(x.dtype)


class BiasedAttention(Attention):
    """Self-attention whose last layer has a bias."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.proj = nn.Dense(channels, channels)

    def construct(self, x: Tensor) -> Tensor:
        return lay_for_device(self.proj(self.attend(self.qkv(lay_channels_last(x)))))


class PlacesDense(nn.Dense):
    """A linear layer without bias over the places of a map (N, H, W, C), for each channel alike.

    Args:
        grid: edge of the maps.

    Raises:
        ValueError: in a call, the map is of another size.
    """

    def __init__(self, grid: int) -> None:
        super().__init__(grid**2, grid**2, has_bias=False)
        self.grid = grid

    def construct(self, x: Tensor) -> Tensor:
        n, height, width, channels = x.shape
        if (height, width) != (self.grid, self.grid):
            raise ValueError("spatial fc: found a map of another size than its weights are for")
        mixed = ops.matmul(self.weight.astype(x.dtype), x.reshape(n, height * width, channels))
        return mixed.reshape(n, height, width, channels)


class SpatialFc(nn.Cell):
    """A spatial MLP of one layer: each place gets a learnt sum of all places."""

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.fc = PlacesDense(grid)

    def construct(self, x: Tensor) -> Tensor:
        return lay_for_device(self.fc(lay_channels_last(x)))


class PositionEmbedding(nn.Cell):
    """Adds a learnt map, 0 at first.

    Args:
        channels: of the maps.
        grid: their edge.

    Raises:
        ValueError: in a call, the map is of another size.
    """

    def __init__(self, channels: int, grid: int) -> None:
        super().__init__()
        self.pos_embed = Parameter(Tensor(np.zeros((1, channels, grid, grid), np.float32)))

    def construct(self, x: Tensor) -> Tensor:
        learnt = from_channels_first(self.pos_embed)
        if x.shape[1:] != learnt.shape[1:]:
            raise ValueError("position embedding: found a map of another size than it is for")
        return x + learnt.astype(x.dtype)


def token_mixer(kind: str, channels: int, stage: int) -> Callable[[], nn.Cell]:
    """Give what makes the token mixer of a block; a spatial fc is for the stage's map at 224 px."""
    if kind == "spatial fc":
        return partial(SpatialFc, GRIDS[stage])
    if kind == "attention":
        return partial(BiasedAttention, channels)
    return {"identity": nn.Identity, "pooling": Pooling}[kind]


class Hybrid(StagedClassifier):
    """A hybrid: images (N, in_channels, H, W) to logits (N, num_classes).

    Args:
        depths: blocks in each stage.
        dims: channels of each stage.
        family: a key of FAMILIES, which tells token mixers, norm and position embedding.
        drop_rate: dropout inside the MLPs.
        layer_scale_init: initial value of the layer scales.
        head: "norm_pool", the only order of a hybrid's head.
        **staged: what every :class:`StagedClassifier` takes; with ``features_only`` each map goes
            through its own norm, as in PoolFormer.

    Raises:
        ValueError: ``out_indices`` names a stage that is not there, or none; ``head`` is another.
            In a call, the images are of another size than a spatial fc or position embedding is
            for.
    """

    def __init__(
        self,
        depths: Sequence[int],
        dims: Sequence[int],
        family: str,
        *,
        drop_rate: float = 0.0,
        layer_scale_init: float = 1e-5,
        head: str = NORM_POOL,
        **staged: Any,
    ) -> None:
        super().__init__(depths, dims, head_order=head, **staged)
        if head != NORM_POOL:
            raise ValueError(f"head: found {head!r}, expected {NORM_POOL!r} for a {family}")
        self.family, parts = family, FAMILIES[family]
        self.stage_numbers = parts.stage_numbers
        norm: type[nn.Cell] = {"sample": GroupNorm, "channels": LayerNormChannel}[parts.norm]
        self.patch_embed = PatchEmbed(self.in_channels, dims[0], patch_size=7, stride=4, padding=2)
        rates = iter(self.drop_path_rates)
        network: list[nn.Cell] = []
        for stage, (depth, channels) in enumerate(zip(depths, dims, strict=True)):
            if stage > 0:
                network.append(
                    PatchEmbed(dims[stage - 1], channels, patch_size=3, stride=2, padding=1)
                )
            if stage == parts.position:
                network.append(PositionEmbedding(channels, GRIDS[stage]))
            mixer = token_mixer(parts.token_mixers[stage], channels, stage)
            blocks = [
                PoolFormerBlock(channels, drop_rate, next(rates), layer_scale_init, mixer, norm)
                for _ in range(depth)
            ]
            network.append(nn.CellList(blocks))
        self.network = nn.CellList(network)
        if self.features_only:
            self._add_feature_norms(norm)
        else:
            self.norm = norm(dims[-1])
            self.head = self._new_head(self.num_classes)
        initialize_parts(self)

    def _add_feature_norms(self, norm: type[nn.Cell]) -> None:
        numbers = [self.stage_numbers[i] for i in self.out_indices]
        self.feature_info = [
            {"chs": self.dims[i], "reduction": 4 * 2**i, "name": f"network.{number}"}
            for i, number in zip(self.out_indices, numbers)
        ]
        for i, number in zip(self.out_indices, numbers):
            setattr(self, f"norm{number}", norm(self.dims[i]))
        self.feature_norms = [getattr(self, f"norm{number}") for number in numbers]

    def layer_of(self, parameter_name: str) -> int:
        """Tell how deep a parameter lies: the stem 0, each block one more, norm and head on top.

        What stands before a stage counts with its first block; see :meth:`PoolFormer.layer_of`.
        """
        part = parameter_name.split(".")
        if part[0] == "patch_embed":
            return 0
        if part[0] != "network":
            return sum(self.depths) + 1
        place = int(part[1])
        stage = next(i for i, number in enumerate(self.stage_numbers) if place <= number)
        in_block = place == self.stage_numbers[stage]
        return sum(self.depths[:stage]) + 1 + (int(part[2]) if in_block else 0)

    def cells_of(self, stage: int) -> list[nn.Cell]:
        """Give what a stage consists of: a strided convolution, maybe a position, the blocks."""
        if stage == 0:
            return [self.patch_embed, self.network[0]]
        first, last = self._numbers_of(stage)
        return [self.network[number] for number in range(first, last + 1)]

    def _numbers_of(self, stage: int) -> tuple[int, int]:
        """Where ``network`` has the downsample and the blocks of a stage; the stem is not in it."""
        before = self.stage_numbers[stage - 1] if stage > 0 else -1
        return before + 1, self.stage_numbers[stage]

    def mixer_of(self, stage: int) -> str:
        """Name the token mixer of a stage."""
        return FAMILIES[self.family].token_mixers[stage]

    def _stage(self, x: Tensor, stage: int, drop_path: Tensor | None) -> Tensor:
        first, last = self._numbers_of(stage)
        if stage == 0:
            x = self.patch_embed(x)
        for place in range(first, last):
            x = self.network[place](x)
        return self._through(self.network[last], x, stage, drop_path)
