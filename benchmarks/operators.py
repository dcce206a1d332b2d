"""What a PoolFormer's operators move through memory, on paper: the counting rules, as tables.

The rule: an operator reads each of its inputs and writes each of its outputs once, and nothing
stays on the chip between two operators. What one row names is one operator: in the plain form each
operator of models/parts/layers.py, in the deploy form each group that a compiler can fuse, in the
train form the plain form, drop path and the gradients. The matrix weights are read or written once
per batch; vectors (biases, norms, layer scales) count nothing.

Reads and writes are in maps: (C, H, W) of the stage is 1, the MLP's (4 C, H, W) is 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .macs import MLP_RATIO, embedding_weights, parameters, stage_sides


class Row(NamedTuple):
    """An operator of a block: maps read and written, and whether the matrix unit does it."""

    name: str
    reads: int
    writes: int
    matrix: bool = False


PLAIN = (
    Row("norm1: mean and variance", 1, 0),
    Row("norm1: normalise", 1, 1),
    Row("3x3 mean", 1, 1),
    Row("minus identity", 2, 1),
    Row("layer scale 1", 1, 1),
    Row("residual 1", 2, 1),
    Row("norm2: mean and variance", 1, 0),
    Row("norm2: normalise", 1, 1),
    Row("fc1", 1, 4, matrix=True),
    Row("GELU", 4, 4),
    Row("fc2", 4, 1, matrix=True),
    Row("layer scale 2", 1, 1),
    Row("residual 2", 2, 1),
)
DEPLOY = (
    Row("variance of x", 1, 0),
    Row("x + a * rstd * (pool(x) - x)", 1, 1),
    Row("mean and variance", 1, 0),
    Row("(x - mean) * rstd", 1, 1),
    Row("fc1 with norm2's weights", 1, 4, matrix=True),
    Row("GELU", 4, 4),
    Row("fc2 with layer scale 2", 4, 1, matrix=True),
    Row("residual 2", 2, 1),
)
TRAIN = (
    *PLAIN,
    Row("drop path 1", 1, 1),
    Row("drop path 2", 1, 1),
    Row("residual 2: sum of gradients", 2, 1),
    Row("drop path 2: gradient", 1, 1),
    Row("layer scale 2: gradient of its input", 1, 1),
    Row("layer scale 2: its gradient", 2, 0),
    Row("fc2: gradient of its input", 1, 4, matrix=True),
    Row("fc2: gradient of its weights", 5, 0, matrix=True),
    Row("fc2: gradient of its bias", 1, 0),
    Row("GELU: gradient", 8, 4),
    Row("fc1: gradient of its input", 4, 1, matrix=True),
    Row("fc1: gradient of its weights", 5, 0, matrix=True),
    Row("fc1: gradient of its bias", 4, 0),
    Row("norm2: sums of the gradient", 2, 0),
    Row("norm2: gradient of its input", 2, 1),
    Row("residual 1: sum of gradients", 2, 1),
    Row("drop path 1: gradient", 1, 1),
    Row("layer scale 1: gradient of its input", 1, 1),
    Row("layer scale 1: its gradient", 2, 0),
    Row("3x3 mean: gradient", 1, 1),
    Row("minus identity: gradient", 2, 1),
    Row("norm1: sums of the gradient", 2, 0),
    Row("norm1: gradient of its input", 2, 1),
)
BLOCKS = {"plain": PLAIN, "deploy": DEPLOY, "train": TRAIN}
# MindSpore composes the erf GELU of div, erf, add, mul, mul; not fused they move 44 maps, not 8.
GELU_UNFUSED = 4 * (2 + 2 + 2 + 3 + 2)


class Operator(NamedTuple):
    """An operator's work: elements moved and MACs per image, weights moved per batch."""

    name: str
    moved: int
    weights: int = 0
    macs: int = 0


def operators(
    depths: Sequence[int],
    dims: Sequence[int],
    image_size: int,
    form: str,
    num_classes: int = 1000,
    in_channels: int = 3,
) -> list[Operator]:
    """Give all operators of a network in the form plain, deploy or train."""
    found = _embeddings(dims, image_size, in_channels, form == "train")
    sides = stage_sides(image_size, len(dims))
    for depth, channels, side in zip(depths, dims, sides, strict=True):
        found += depth * _block(BLOCKS[form], channels, side)
    return found + _head(dims[-1], sides[-1], num_classes, form)


def deploy_parameters(
    depths: Sequence[int], dims: Sequence[int], num_classes: int = 1000, in_channels: int = 3
) -> int:
    """Give the parameters of the deploy form: of a block's six vectors of C, norms and layer
    scales, one is left, and none of the last norm's two; the others are folded into the weights."""
    folded = sum(5 * depth * channels for depth, channels in zip(depths, dims, strict=True))
    folded += 2 * dims[-1]
    return parameters(depths, dims, num_classes, in_channels) - folded


def _block(rows: Sequence[Row], channels: int, side: int) -> list[Operator]:
    pixels = side * side
    weights = MLP_RATIO * channels * channels
    return [
        Operator(
            row.name,
            (row.reads + row.writes) * channels * pixels,
            weights * row.matrix,
            weights * pixels * row.matrix,
        )
        for row in rows
    ]


def _embeddings(
    dims: Sequence[int], image_size: int, in_channels: int, train: bool
) -> list[Operator]:
    """The stem and the downsamples; nothing wants the gradient of the images."""
    found = []
    before = in_channels * image_size * image_size
    sides = stage_sides(image_size, len(dims))
    weights = embedding_weights(dims, in_channels)
    for stage, (channels, side, weight) in enumerate(zip(dims, sides, weights, strict=True)):
        after = channels * side * side
        work = before + after, weight, weight * side * side
        found.append(Operator(f"embedding {stage}", *work))
        if train:
            found.append(Operator(f"embedding {stage}: gradient of its weights", *work))
            found.append(Operator(f"embedding {stage}: gradient of its bias", after))
        if train and stage > 0:
            found.append(Operator(f"embedding {stage}: gradient of its input", *work))
        before = after
    return found


def _head(channels: int, side: int, num_classes: int, form: str) -> list[Operator]:
    size = channels * side * side
    weights = channels * num_classes
    dense = channels + num_classes, weights, weights
    found = [Operator("norm: mean and variance", size)]
    if form != "deploy":  # where it normalises the mean
        found.append(Operator("norm: normalise", 2 * size))
    found += [Operator("mean over H, W", size + channels), Operator("classifier", *dense)]
    if form == "train":
        found += [
            Operator("classifier: gradient of its input", *dense),
            Operator("classifier: gradient of its weights", *dense),
            Operator("mean over H, W: gradient", channels + size),
            Operator("norm: sums of the gradient", 2 * size),
            Operator("norm: gradient of its input", 3 * size),
        ]
    return found
