"""MetaFormer (arXiv 2210.13452): the token mixer is a parameter, everything else stays.

The parameter names are those of the official code (sail-sg/metaformer), but for MindSpore's
``gamma`` and ``beta`` of norms. Maps between the Cells are (N, H, W, C) on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn

from .classifier import POOL_NORM, StagedClassifier, initialize_linear
from .parts.activations import SquaredReLU, StarReLU
from .parts.convolutions import DepthwiseConv, StridedConv
from .parts.layers import DropPath
from .parts.layout import (
    lay_for_device,
    move_channels_first,
    move_channels_last,
    on_channels_last,
)
from .parts.mixers import GRIDS, Attention, ChannelsLastPooling, RandomMixing, SepConv
from .parts.norms import ChannelNorm, LayerNorm, SampleNorm
from .variants import FAMILIES

NORMS = {"sample": SampleNorm, "channels": ChannelNorm}


def token_mixer(kind: str, channels: int, stage: int) -> nn.Cell:
    """Give the token mixer of a block; the map of random mixing has the stage's edge at 224 px."""
    if kind == "identity":
        return nn.Identity()
    if kind == "random":
        return RandomMixing(GRIDS[stage])
    if kind == "pooling":
        return ChannelsLastPooling()
    return {"conv": SepConv, "attention": Attention}[kind](channels)


class Downsampling(nn.Cell):
    """A strided convolution: the stem, with a norm behind it, or else with one before it."""

    def __init__(
        self, in_channels: int, channels: int, kernel_size: int, stride: int, padding: int
    ) -> None:
        super().__init__()
        self.is_stem = stride == 4
        if not self.is_stem:
            self.pre_norm = ChannelNorm(in_channels)
        self.conv = StridedConv(in_channels, channels, kernel_size, stride, padding)
        if self.is_stem:
            self.post_norm = ChannelNorm(channels)

    def construct(self, x: Tensor) -> Tensor:
        if self.is_stem:
            return self.post_norm(on_channels_last(self.conv, x))
        return on_channels_last(self.conv, self.pre_norm(x))


class Mlp(nn.Cell):
    """Two linear layers without biases, four times as many channels and StarReLU between them."""

    def __init__(self, channels: int, drop_rate: float) -> None:
        super().__init__()
        self.fc1 = nn.Dense(channels, 4 * channels, has_bias=False)
        self.act = StarReLU()
        self.fc2 = nn.Dense(4 * channels, channels, has_bias=False)
        self.drop = nn.Dropout(p=drop_rate)

    def construct(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class MlpHead(nn.Cell):
    """The classifier of ConvFormer and CAFormer: squared ReLU and LayerNorm between two layers."""

    def __init__(self, channels: int, num_classes: int, drop_rate: float) -> None:
        super().__init__()
        self.fc1 = nn.Dense(channels, 4 * channels)
        self.act = SquaredReLU()
        self.norm = nn.LayerNorm((4 * channels,), epsilon=1e-5)
        self.head_dropout = nn.Dropout(p=drop_rate)
        self.fc2 = nn.Dense(4 * channels, num_classes)

    def construct(self, x: Tensor) -> Tensor:
        return self.fc2(self.head_dropout(self.norm(self.act(self.fc1(x)))))


class Scale(nn.Cell):
    """A factor for each channel, 1 at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = Parameter(Tensor(np.ones(channels, np.float32)))

    def construct(self, x: Tensor) -> Tensor:
        return x * self.scale.astype(x.dtype)


class MetaFormerBlock(nn.Cell):
    """Norm, token mixer, residual; norm, MLP, residual (figure 1).

    The residual connections are scaled where ``scales_residuals`` (arXiv 2110.09456).
    ``drop_path``, shape (2, N), scales the two branches of each sample; see :class:`DropPath`.
    """

    def __init__(
        self,
        channels: int,
        mixer: nn.Cell,
        norm: type[nn.Cell],
        drop_rate: float,
        drop_path_rate: float,
        scales_residuals: bool,
    ) -> None:
        super().__init__()
        self.norm1 = norm(channels)
        self.token_mixer = mixer
        self.res_scale1 = Scale(channels) if scales_residuals else nn.Identity()
        self.norm2 = norm(channels)
        self.mlp = Mlp(channels, drop_rate)
        self.res_scale2 = Scale(channels) if scales_residuals else nn.Identity()
        self.drop_path = DropPath(drop_path_rate)

    def construct(self, x: Tensor, drop_path: Tensor | None = None) -> Tensor:
        first, second = (None, None) if drop_path is None else (drop_path[0], drop_path[1])
        x = self.res_scale1(x) + self.drop_path(self.token_mixer(self.norm1(x)), first)
        return self.res_scale2(x) + self.drop_path(self.mlp(self.norm2(x)), second)


class MetaFormer(StagedClassifier):
    """A MetaFormer: images (N, in_channels, H, W) to logits (N, num_classes).

    Args:
        depths: blocks in each stage.
        dims: channels of each stage.
        family: a key of FAMILIES, which tells token mixers, norm and head.
        drop_rate: dropout inside the MLPs.
        head_drop_rate: dropout inside an MLP head.
        head: "pool_norm", the only order of a MetaFormer's head.
        **staged: what every :class:`StagedClassifier` takes; with ``features_only`` the maps come
            without a further norm (as in timm).

    Raises:
        ValueError: ``out_indices`` names a stage that is not there, or none; ``head`` is another;
            the family has no MLP head for ``head_drop_rate``.
    """

    def __init__(
        self,
        depths: Sequence[int],
        dims: Sequence[int],
        family: str,
        *,
        drop_rate: float = 0.0,
        head_drop_rate: float = 0.0,
        head: str = POOL_NORM,
        **staged: Any,
    ) -> None:
        super().__init__(depths, dims, head_order=head, **staged)
        self.family, parts = family, FAMILIES[family]
        if head != POOL_NORM:
            raise ValueError(f"head: found {head!r}, expected {POOL_NORM!r} for a {family}")
        if head_drop_rate and not parts.mlp_head:
            raise ValueError(f"head_drop_rate: found {head_drop_rate}, expected 0 for a {family}")
        self.mlp_head, self.head_drop_rate = parts.mlp_head, head_drop_rate
        self.downsample_layers = nn.CellList(
            [
                Downsampling(before, channels, *((7, 4, 2) if stage == 0 else (3, 2, 1)))
                for stage, (before, channels) in enumerate(zip((self.in_channels, *dims), dims))
            ]
        )
        rates = iter(self.drop_path_rates)
        self.stages = nn.CellList(
            [
                nn.CellList(
                    [
                        MetaFormerBlock(
                            channels,
                            token_mixer(parts.token_mixers[stage], channels, stage),
                            NORMS[parts.norm],
                            drop_rate,
                            next(rates),
                            scales_residuals=stage >= 2,
                        )
                        for _ in range(depth)
                    ]
                )
                for stage, (depth, channels) in enumerate(zip(depths, dims))
            ]
        )
        if self.features_only:
            self.feature_info = [
                {"chs": dims[i], "reduction": 4 * 2**i, "name": f"stages.{i}"}
                for i in self.out_indices
            ]
            self.feature_norms = [nn.Identity() for _ in self.out_indices]
        else:
            self.norm = LayerNorm(dims[-1])
            self.head = self._new_head(self.num_classes)
        for _, cell in self.cells_and_names():
            if isinstance(cell, (nn.Dense, StridedConv, DepthwiseConv)):
                initialize_linear(cell)

    def layer_of(self, parameter_name: str) -> int:
        """Tell how deep a parameter lies: the stem 0, each block one more, norm and head on top.

        A downsample counts with the block behind it; see :meth:`PoolFormer.layer_of`.
        """
        part = parameter_name.split(".")
        if part[0] not in ("downsample_layers", "stages"):
            return sum(self.depths) + 1
        stage = int(part[1])
        if part[0] == "downsample_layers":
            return sum(self.depths[:stage]) + 1 if stage else 0
        return sum(self.depths[:stage]) + 1 + int(part[2])

    def cells_of(self, stage: int) -> list[nn.Cell]:
        """Give what a stage consists of: a strided convolution with a norm, and the blocks."""
        return [self.downsample_layers[stage], self.stages[stage]]

    def mixer_of(self, stage: int) -> str:
        """Name the token mixer of a stage."""
        return FAMILIES[self.family].token_mixers[stage]

    def _enter(self, x: Tensor) -> Tensor:
        return move_channels_last(x)

    def _leave(self, x: Tensor) -> Tensor:
        return move_channels_first(x)

    def _lay_for_device(self, x: Tensor) -> Tensor:
        return lay_for_device(x)

    def _mean(self, x: Tensor) -> Tensor:
        return x.mean((1, 2))

    def _stage(self, x: Tensor, stage: int, drop_path: Tensor | None) -> Tensor:
        x = self.downsample_layers[stage](x)
        return self._through(self.stages[stage], x, stage, drop_path)

    def _new_head(self, num_classes: int) -> nn.Cell:
        if self.mlp_head and num_classes > 0:
            return MlpHead(self.num_features, num_classes, self.head_drop_rate)
        return super()._new_head(num_classes)
