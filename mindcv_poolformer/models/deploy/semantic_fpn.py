"""A Semantic FPN as it serves."""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, nn, ops

from ..dense.semantic_fpn import ConvNormReLU, Doubling, SemanticFPN, SemanticFPNHead
from ..parts.convolutions import SpatialConv, as_product
from ..parts.layout import to_channels_first
from ..parts.resizing import resize_bilinear, size_of
from .folding import copy_of, fill, values_of
from .fpn import Backbone, DeployedFPN


class DeployedSemanticFPN(nn.Cell):
    """What to_deploy makes of a Semantic FPN: images (N, C, H, W) to logits (N, classes, H/4, W/4).

    Let m and v be a batch norm's running statistics.

    1. The backbone's blocks are those of its classifier's deploy form.
    2. A map's own norm goes into the neck, see :class:`DeployedFPN`.
    3. In the head g (W x - m) / s + b, with s^2 = v + eps, is one convolution with bias.

    Args:
        model: left alone.
        backbone: the deploy form of its backbone.
    """

    def __init__(self, model: SemanticFPN, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = DeployedFPN(model)
        self.decode_head = DeployedHead(model.decode_head)
        self.num_classes = model.num_classes
        self.set_train(False)

    def construct(self, images: Tensor) -> Tensor:
        maps = self.neck(self.backbone.stage_maps(images))
        return to_channels_first(self.decode_head(maps))


class DeployedHead(nn.Cell):
    """The head without dropout, its batch norms in the convolutions before them."""

    def __init__(self, head: SemanticFPNHead) -> None:
        super().__init__()
        self.scale_heads = nn.CellList(
            [nn.SequentialCell([_deployed(cell) for cell in level]) for level in head.scale_heads]
        )
        self.conv_seg = copy_of(head.conv_seg)

    def construct(self, maps: list[Tensor]) -> Tensor:
        size = size_of(maps[0])
        levels = [head(x) for head, x in zip(self.scale_heads, maps)]
        total = levels[0]
        for x in levels[1:]:
            total = total + resize_bilinear(x, size)
        return self.conv_seg(total)


class ConvReLU(nn.Cell):
    """A 3x3 convolution, the batch norm behind it, and ReLU."""

    def __init__(self, block: ConvNormReLU) -> None:
        super().__init__()
        bn = block.bn
        weight, gamma, beta, mean, variance = values_of(
            block.conv.weight, bn.gamma, bn.beta, bn.moving_mean, bn.moving_variance
        )
        scale = gamma / np.sqrt(variance + bn.eps)
        self.conv = SpatialConv(block.conv.in_channels, block.conv.out_channels)
        fill(self.conv.weight, as_product(scale[:, None, None, None] * weight))
        fill(self.conv.bias, beta - scale * mean)

    def construct(self, x: Tensor) -> Tensor:
        return ops.relu(self.conv(x))


def _deployed(cell: nn.Cell) -> nn.Cell:
    return Doubling() if isinstance(cell, Doubling) else ConvReLU(cell)
