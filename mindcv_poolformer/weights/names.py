"""What the parameters of a PoolFormer are called in everybody's checkpoints.

Every naming lists the same parameters in the same order, so a conversion is a zip of two lists.
Sources: sail-sg/poolformer; timm's ``metaformer.py``; transformers' ``modeling_poolformer.py``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

_LINEAR = (".weight", ".bias")
_SCALE = ("",)


@dataclass(frozen=True)
class Naming:
    """How one code base names the parameters.

    Args:
        label: of the code base, for people.
        convs: the stem and the three downsamples.
        stages: what holds the blocks of each stage, by number.
        block: in each block the norms of mixer and MLP, the MLP's two layers, the two layer scales.
        norm: before the classifier.
        head: the classifier.
        norm_leaves: the two parameters of a norm.
    """

    label: str
    convs: tuple[str, str, str, str]
    stages: tuple[str, str, str, str]
    block: tuple[str, str, str, str, str, str]
    norm: str
    head: str
    norm_leaves: tuple[str, str] = (".weight", ".bias")

    @property
    def stem(self) -> str:
        """The name of the stem's weight."""
        return f"{self.convs[0]}.weight"

    @property
    def classifier(self) -> tuple[str, str]:
        """The names of the classifier's weight and bias."""
        return f"{self.head}.weight", f"{self.head}.bias"

    def names(self, depths: Sequence[int]) -> list[str]:
        """Give the name of every parameter of a network with that many blocks in each stage."""
        return [module + leaf for module, leaves in self._modules(depths) for leaf in leaves]

    def _modules(self, depths: Sequence[int]) -> Iterator[tuple[str, tuple[str, ...]]]:
        norm = self.norm_leaves
        yield from ((conv, _LINEAR) for conv in self.convs)
        for stage, depth in zip(self.stages, depths, strict=True):
            for number in range(depth):
                for part, leaves in zip(
                    self.block, (norm, norm, _LINEAR, _LINEAR, _SCALE, _SCALE), strict=True
                ):
                    yield f"{stage}.{number}.{part}", leaves
        yield self.norm, norm
        yield self.head, _LINEAR

    def fits(self, names: Collection[str]) -> bool:
        """Tell whether names are of this naming: by the stem, and by the norm of a first block."""
        first_norm = f"{self.stages[0]}.0.{self.block[0]}{self.norm_leaves[0]}"
        return self.stem in names and first_norm in names

    def depths(self, names: Collection[str]) -> tuple[int, ...]:
        """Give the number of blocks in each stage, by the highest block number among the names."""
        depths = []
        for stage in self.stages:
            block = re.compile(re.escape(stage) + r"\.(\d+)\.")
            numbers = [int(found[1]) for found in map(block.match, names) if found]
            depths.append(max(numbers, default=-1) + 1)
        return tuple(depths)


OFFICIAL = Naming(
    label="official (sail-sg)",
    convs=("patch_embed.proj", "network.1.proj", "network.3.proj", "network.5.proj"),
    stages=("network.0", "network.2", "network.4", "network.6"),
    block=("norm1", "norm2", "mlp.fc1", "mlp.fc2", "layer_scale_1", "layer_scale_2"),
    norm="norm",
    head="head",
)
MINDCV = replace(OFFICIAL, label="MindCV", norm_leaves=(".gamma", ".beta"))
TIMM = Naming(
    label="timm",
    convs=(
        "stem.conv",
        "stages.1.downsample.conv",
        "stages.2.downsample.conv",
        "stages.3.downsample.conv",
    ),
    stages=("stages.0.blocks", "stages.1.blocks", "stages.2.blocks", "stages.3.blocks"),
    block=("norm1", "norm2", "mlp.fc1", "mlp.fc2", "layer_scale1.scale", "layer_scale2.scale"),
    norm="head.norm",
    head="head.fc",
)
HUGGINGFACE = Naming(
    label="Hugging Face",
    convs=(
        "poolformer.encoder.patch_embeddings.0.projection",
        "poolformer.encoder.patch_embeddings.1.projection",
        "poolformer.encoder.patch_embeddings.2.projection",
        "poolformer.encoder.patch_embeddings.3.projection",
    ),
    stages=(
        "poolformer.encoder.block.0",
        "poolformer.encoder.block.1",
        "poolformer.encoder.block.2",
        "poolformer.encoder.block.3",
    ),
    block=(
        "before_norm",
        "after_norm",
        "output.conv1",
        "output.conv2",
        "layer_scale_1",
        "layer_scale_2",
    ),
    norm="norm",
    head="classifier",
)
NAMINGS = (MINDCV, OFFICIAL, TIMM, HUGGINGFACE)
