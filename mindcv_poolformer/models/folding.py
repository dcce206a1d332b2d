"""Parameters read and written where the deploy forms fold one into another."""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn

from .kernels import as_product
from .layers import PatchEmbed


def values_of(*parameters: Parameter) -> list[np.ndarray]:
    """Give the values in float64, so that the folding adds no rounding of its own."""
    return [parameter.asnumpy().astype(np.float64) for parameter in parameters]


def fill(parameter: Parameter, values: np.ndarray) -> None:
    """Set a parameter to values, which may have another shape, in float32."""
    parameter.set_data(Tensor(values.astype(np.float32)), slice_shape=True)


def embed_like(conv: nn.Conv2d, weight: np.ndarray) -> PatchEmbed:
    """Give a strided convolution as ``conv``, with another weight (O, I, k, k) in its place."""
    embed = PatchEmbed(
        conv.in_channels,
        conv.out_channels,
        patch_size=conv.kernel_size[0],
        stride=conv.stride[0],
        padding=conv.padding,
    )
    fill(embed.proj.weight, as_product(weight))
    fill(embed.proj.bias, conv.bias.asnumpy())
    return embed
