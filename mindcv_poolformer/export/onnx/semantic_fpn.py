"""A Semantic FPN's deploy form as nodes of an ONNX graph; maps are (N, C, H, W) in it."""

from __future__ import annotations

from mindspore import nn

from ...models.deploy.semantic_fpn import ConvReLU, DeployedHead, DeployedSemanticFPN
from .builder import Builder
from .fpn import add_pyramid


def add_semantic_fpn(graph: Builder, x: str, model: DeployedSemanticFPN) -> str:
    """As :meth:`DeployedSemanticFPN.construct`: from images to logits of each place."""
    maps = add_pyramid(graph, x, model.backbone, model.neck)
    return _head(graph, maps, model.decode_head)


def _head(graph: Builder, maps: list[str], head: DeployedHead) -> str:
    levels = [_level(graph, x, cells) for x, cells in zip(maps, head.scale_heads, strict=True)]
    total = levels[0]
    for x in levels[1:]:
        total = graph.node("Add", total, graph.resize_bilinear(x, levels[0]))
    return graph.conv(total, head.conv_seg)


def _level(graph: Builder, x: str, cells: nn.SequentialCell) -> str:
    for cell in cells:
        if isinstance(cell, ConvReLU):
            x = graph.node("Relu", graph.conv(x, cell.conv))
        else:
            x = graph.double(x)
    return x
