"""Parameters read and written where the deploy forms fold one into another."""

from __future__ import annotations

import os
from copy import deepcopy

import numpy as np
from mindspore import Parameter, Tensor, nn

from ..parts.convolutions import as_product
from ..parts.layers import ConvMlp, PatchEmbed, PoolFormerBlock


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


def mlp_of(block: PoolFormerBlock) -> ConvMlp:
    """Give a block's MLP; scale and shift of the norm before it, and layer scale, are folded in."""
    scale, gamma, beta = values_of(block.layer_scale_2, block.norm2.gamma, block.norm2.beta)
    fc1, fc2 = block.mlp.fc1, block.mlp.fc2
    weight_1, bias_1, weight_2, bias_2 = values_of(fc1.weight, fc1.bias, fc2.weight, fc2.bias)
    mlp = ConvMlp(fc1.in_channels, fc1.out_channels)
    fill(mlp.fc1.weight, as_product(weight_1 * gamma[:, None, None]))
    fill(mlp.fc1.bias, weight_1[:, :, 0, 0] @ beta + bias_1)
    fill(mlp.fc2.weight, as_product(scale[:, None, None, None] * weight_2))
    fill(mlp.fc2.bias, scale * bias_2)
    return mlp


def copy_of(cell: nn.Cell) -> nn.Cell:
    """Give the same Cell with parameters of its own, in no other's name."""
    copy = deepcopy(cell)
    parameters = list(copy.get_parameters())
    owner = os.path.commonprefix([parameter.name for parameter in parameters]).rpartition(".")[0]
    for parameter in parameters:
        parameter.name = parameter.name[len(owner) :].lstrip(".")
    return copy
