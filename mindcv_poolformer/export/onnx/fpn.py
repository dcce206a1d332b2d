"""A backbone's and an FPN's deploy form as nodes of an ONNX graph; maps are (N, C, H, W) in it."""

from __future__ import annotations

from mindspore import nn

from ...models.deploy.fpn import Backbone, DeployedFPN, WholeNorm
from ...models.deploy.hybrid import DeployedHybrid, Standardize
from ...models.deploy.metaformer import DeployedMetaFormer
from .builder import Builder
from .hybrid import add_standardize, hybrid_stages
from .metaformer import metaformer_stages
from .poolformer import poolformer_stages


def add_pyramid(graph: Builder, x: str, backbone: Backbone, neck: DeployedFPN) -> list[str]:
    """From images to the levels of the FPN, the finest first."""
    stages = _stages(graph, x, backbone)
    norms = zip(neck.out_indices, neck.norms, strict=True)
    maps = [_normalized(graph, stages[i], norm) for i, norm in norms]
    fpn = neck.fpn
    finer = [graph.conv(x, module.conv) for x, module in zip(maps, fpn.lateral_convs, strict=True)]
    sums = finer[-1:]
    for x in finer[-2::-1]:
        sums.append(graph.node("Add", x, graph.resize_nearest(sums[-1], x)))
    levels = [graph.conv(x, module.conv) for x, module in zip(sums[::-1], fpn.fpn_convs)]
    x = maps[-1]
    for module in fpn.fpn_convs[len(levels) :]:
        x = graph.conv(x, module.conv)
        levels.append(x)
    return levels


def _stages(graph: Builder, x: str, model: Backbone) -> list[str]:
    if isinstance(model, DeployedMetaFormer):
        return metaformer_stages(graph, x, model)
    if isinstance(model, DeployedHybrid):
        return hybrid_stages(graph, x, model)
    return poolformer_stages(graph, x, model)


def _normalized(graph: Builder, x: str, norm: nn.Cell) -> str:
    if isinstance(norm, Standardize):
        return add_standardize(graph, x, norm)
    if isinstance(norm, WholeNorm):
        x = add_standardize(graph, x, norm.standardize)
        x = graph.node("Mul", x, graph.column(norm.gamma.asnumpy()))
        return graph.node("Add", x, graph.column(norm.beta.asnumpy()))
    return x
