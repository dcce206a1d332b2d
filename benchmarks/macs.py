"""The cost of a PoolFormer from its shape alone: multiply-accumulates and parameters.

Nothing is built or run. Sources: the layers of mindcv_poolformer/models; the counting rule is that
of fvcore's FlopCountAnalysis (facebookresearch/fvcore, fvcore/nn/jit_handles.py).
"""

from __future__ import annotations

from collections.abc import Sequence

STEM_KERNEL, STEM_STRIDE, STEM_PADDING = 7, 4, 2
DOWN_KERNEL, DOWN_STRIDE, DOWN_PADDING = 3, 2, 1
MLP_RATIO = 4
FVCORE_NORM = 5  # what fvcore counts for an element of an affine norm


def stage_sides(image_size: int, stages: int = 4) -> tuple[int, ...]:
    """Give the side of each stage's map, for square images of ``image_size`` px."""
    side = (image_size + 2 * STEM_PADDING - STEM_KERNEL) // STEM_STRIDE + 1
    if side < 1:
        raise ValueError(f"image_size: found {image_size}, expected at least 3")
    sides = [side]
    while len(sides) < stages:
        sides.append((sides[-1] + 2 * DOWN_PADDING - DOWN_KERNEL) // DOWN_STRIDE + 1)
    return tuple(sides)


def embedding_weights(dims: Sequence[int], in_channels: int = 3) -> tuple[int, ...]:
    """Give the weights, biases apart, of the stem and of each downsample."""
    inputs, kernels = (in_channels, *dims[:-1]), (STEM_KERNEL, *[DOWN_KERNEL] * (len(dims) - 1))
    return tuple(k * k * i * o for k, i, o in zip(kernels, inputs, dims, strict=True))


def matrix_macs(
    depths: Sequence[int],
    dims: Sequence[int],
    image_size: int,
    num_classes: int = 1000,
    in_channels: int = 3,
) -> int:
    """Give the MACs per image of the convolutions and the classifier, the matrix unit's work."""
    total = dims[-1] * num_classes
    sides = stage_sides(image_size, len(dims))
    embeddings = embedding_weights(dims, in_channels)
    for depth, channels, side, embedding in zip(depths, dims, sides, embeddings, strict=True):
        mlp = 2 * channels * MLP_RATIO * channels
        total += (embedding + depth * mlp) * side * side
    return total


def macs(
    depths: Sequence[int],
    dims: Sequence[int],
    image_size: int,
    num_classes: int = 1000,
    in_channels: int = 3,
) -> int:
    """Give the MACs per image as fvcore counts them: :func:`matrix_macs`, and the GroupNorms.

    fvcore takes 5 for each element of a norm with weight and bias; pooling, GELU, layer scale and
    residuals count nothing. This is the count of the variant table.
    """
    sides = stage_sides(image_size, len(dims))
    maps = [channels * side * side for channels, side in zip(dims, sides, strict=True)]
    normed = sum(2 * depth * size for depth, size in zip(depths, maps, strict=True)) + maps[-1]
    return matrix_macs(depths, dims, image_size, num_classes, in_channels) + FVCORE_NORM * normed


def parameters(
    depths: Sequence[int], dims: Sequence[int], num_classes: int = 1000, in_channels: int = 3
) -> int:
    """Give the number of parameters; all of them are trained."""
    total = sum(embedding_weights(dims, in_channels)) + sum(dims)
    for depth, channels in zip(depths, dims, strict=True):
        hidden = MLP_RATIO * channels
        norms_and_scales = 6 * channels
        total += depth * (2 * channels * hidden + hidden + channels + norms_and_scales)
    return total + 2 * dims[-1] + (dims[-1] + 1) * num_classes
