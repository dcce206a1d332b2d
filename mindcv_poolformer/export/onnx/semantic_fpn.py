"""A Semantic FPN's deploy form as nodes of an ONNX graph; maps are (N, C, H, W) in it."""

from __future__ import annotations

from mindspore import nn

from ...models.dense.fpn import FPN
from ...models.deploy.hybrid import DeployedHybrid, Standardize
from ...models.deploy.metaformer import DeployedMetaFormer
from ...models.deploy.semantic_fpn import Backbone, ConvReLU, DeployedHead, DeployedSemanticFPN
from .builder import Builder
from .hybrid import add_standardize, hybrid_stages
from .metaformer import metaformer_stages
from .poolformer import poolformer_stages


def add_semantic_fpn(graph: Builder, x: str, model: DeployedSemanticFPN) -> str:
    """As :meth:`DeployedSemanticFPN.construct`: from images to logits of each place."""
    stages = _stages(graph, x, model.backbone)
    maps = [
        add_standardize(graph, stages[i], norm) if isinstance(norm, Standardize) else stages[i]
        for i, norm in zip(model.out_indices, model.norms, strict=True)
    ]
    return _head(graph, _neck(graph, maps, model.neck), model.decode_head)


def _stages(graph: Builder, x: str, model: Backbone) -> list[str]:
    if isinstance(model, DeployedMetaFormer):
        return metaformer_stages(graph, x, model)
    if isinstance(model, DeployedHybrid):
        return hybrid_stages(graph, x, model)
    return poolformer_stages(graph, x, model)


def _neck(graph: Builder, maps: list[str], neck: FPN) -> list[str]:
    finer = [graph.conv(x, module.conv) for x, module in zip(maps, neck.lateral_convs, strict=True)]
    sums = finer[-1:]
    for x in finer[-2::-1]:
        sums.append(graph.node("Add", x, graph.resize_nearest(sums[-1], x)))
    return [
        graph.conv(x, module.conv) for x, module in zip(sums[::-1], neck.fpn_convs, strict=True)
    ]


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
