"""PoolFormer, with the parameter names of the official code (sail-sg/poolformer).

Norms carry MindSpore's ``gamma`` and ``beta`` for ``weight`` and ``bias``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mindspore import Tensor, nn
from mindspore.common.initializer import HeUniform, Uniform

from .classifier import NORM_POOL, POOL_NORM, StagedClassifier, initialize, initialize_linear
from .parts.layers import ConvMlp, PatchEmbed, PoolFormerBlock
from .parts.norms import GroupNorm, LayerNorm


class PoolFormer(StagedClassifier):
    """PoolFormer (arXiv 2111.11418): images (N, in_channels, H, W) to logits (N, num_classes).

    Any H and W that survive the strides of 4, 2, 2 and 2 will do, not only 224.

    Args:
        depths: blocks in each stage.
        dims: channels of each stage.
        drop_rate: dropout inside the MLPs.
        layer_scale_init: initial value of the layer scales.
        head: "norm_pool" as the official code, "pool_norm" as timm, whose weights want it.
        **staged: what every :class:`StagedClassifier` takes: ``num_classes``, ``in_channels``,
            ``drop_path_rate``, ``out_indices``, and ``features_only``, with which each map goes
            through its own GroupNorm.

    Raises:
        ValueError: ``out_indices`` names a stage that is not there, or none; ``head`` is neither.
    """

    def __init__(
        self,
        depths: Sequence[int],
        dims: Sequence[int],
        *,
        drop_rate: float = 0.0,
        layer_scale_init: float = 1e-5,
        head: str = NORM_POOL,
        **staged: Any,
    ) -> None:
        super().__init__(depths, dims, head_order=head, **staged)
        if head not in (NORM_POOL, POOL_NORM):
            raise ValueError(f"head: found {head!r}, expected {NORM_POOL!r} or {POOL_NORM!r}")
        self.patch_embed = PatchEmbed(self.in_channels, dims[0], patch_size=7, stride=4, padding=2)
        rates = iter(self.drop_path_rates)
        network: list[nn.Cell] = []
        for stage, (depth, channels) in enumerate(zip(depths, dims, strict=True)):
            if stage > 0:
                network.append(
                    PatchEmbed(dims[stage - 1], channels, patch_size=3, stride=2, padding=1)
                )
            blocks = [
                PoolFormerBlock(channels, drop_rate, next(rates), layer_scale_init)
                for _ in range(depth)
            ]
            network.append(nn.CellList(blocks))
        self.network = nn.CellList(network)
        if self.features_only:
            self._add_feature_norms()
        else:
            self.norm = LayerNorm(dims[-1]) if head == POOL_NORM else GroupNorm(dims[-1])
            self.head = self._new_head(self.num_classes)
        initialize_parts(self)

    def _add_feature_norms(self) -> None:
        self.feature_info = [
            {"chs": self.dims[i], "reduction": 4 * 2**i, "name": f"network.{2 * i}"}
            for i in self.out_indices
        ]
        for i in self.out_indices:
            setattr(self, f"norm{2 * i}", GroupNorm(self.dims[i]))
        self.feature_norms = [getattr(self, f"norm{2 * i}") for i in self.out_indices]

    def layer_of(self, parameter_name: str) -> int:
        """Tell how deep a parameter lies: the stem 0, each block one more, norm and head on top.

        A downsample counts with the block behind it. For layer-wise learning rates (BEiT, arXiv
        2106.08254, appendix).
        """
        part = parameter_name.split(".")
        if part[0] == "patch_embed":
            return 0
        if part[0] != "network":
            return sum(self.depths) + 1
        place = int(part[1])  # stage, downsample, stage, ...
        before = sum(self.depths[: (place + 1) // 2])
        return before + 1 + (int(part[2]) if place % 2 == 0 else 0)

    def cells_of(self, stage: int) -> list[nn.Cell]:
        """Give what a stage consists of: a strided convolution, and the blocks."""
        before = self.patch_embed if stage == 0 else self.network[2 * stage - 1]
        return [before, self.network[2 * stage]]

    def mixer_of(self, stage: int) -> str:
        """Name the token mixer of a stage."""
        return "pooling"

    def _stage(self, x: Tensor, stage: int, drop_path: Tensor | None) -> Tensor:
        x = self.patch_embed(x) if stage == 0 else self.network[2 * stage - 1](x)
        return self._through(self.network[2 * stage], x, stage, drop_path)


def initialize_parts(network: nn.Cell) -> None:
    """Initialise as the official code: MLPs and head normal, strided convs as PyTorch's."""
    for _, cell in network.cells_and_names():
        if isinstance(cell, PatchEmbed):
            bound = 1 / math.sqrt(math.prod(cell.proj.weight.shape[1:]))
            initialize(cell.proj.weight, HeUniform(negative_slope=math.sqrt(5)))
            initialize(cell.proj.bias, Uniform(bound))
        elif isinstance(cell, ConvMlp):
            for conv in (cell.fc1, cell.fc2):
                initialize_linear(conv)
        elif isinstance(cell, nn.Dense):
            initialize_linear(cell)
