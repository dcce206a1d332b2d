"""A hybrid's deploy form as nodes of an ONNX graph; maps are (N, C, H, W) in it."""

from __future__ import annotations

from mindspore import nn

from ...models.deploy.hybrid import (
    DeployedBiasedAttention,
    DeployedHybrid,
    DeployedHybridBlock,
    DeployedPlacesMixer,
    Standardize,
)
from ...models.hybrid import PositionEmbedding, SpatialFc
from ...models.parts.mixers import HEAD_CHANNELS, Pooling
from .builder import CHANNELS, SAMPLE, Builder


def add_hybrid(graph: Builder, x: str, model: DeployedHybrid) -> str:
    """As :meth:`DeployedHybrid.construct`: from images to logits."""
    x = add_standardize(graph, hybrid_stages(graph, x, model)[-1], model.standardize)
    return graph.gemm(graph.node("ReduceMean", x, axes=[2, 3], keepdims=0), model.head)


def hybrid_stages(graph: Builder, x: str, model: DeployedHybrid) -> list[str]:
    """As :meth:`DeployedHybrid.stage_maps`: from images to the map after each stage."""
    x = graph.conv(x, model.patch_embed.proj)
    maps = []
    for part in model.network:
        if isinstance(part, nn.CellList):
            for block in part:
                x = _block(graph, x, block)
            maps.append(x)
        elif isinstance(part, PositionEmbedding):
            x = graph.node("Add", x, graph.constant(part.pos_embed.asnumpy()))
        else:
            x = graph.conv(x, part.proj)
    return maps


def add_standardize(graph: Builder, x: str, cell: Standardize) -> str:
    """A norm without scale and shift."""
    return graph.standardize(x, cell.eps, SAMPLE if cell.over_sample else CHANNELS)


def _block(graph: Builder, x: str, block: DeployedHybridBlock) -> str:
    mixed = _mix(graph, add_standardize(graph, x, block.standardize), block.mixer)
    x = graph.node("Add", x, mixed)
    y = graph.conv(add_standardize(graph, x, block.standardize), block.mlp.fc1)
    return graph.node("Add", x, graph.conv(graph.gelu(y), block.mlp.fc2))


def _mix(graph: Builder, x: str, cell: DeployedPlacesMixer | DeployedBiasedAttention) -> str:
    if isinstance(cell, DeployedBiasedAttention):
        heads = len(cell.proj.weight) // HEAD_CHANNELS
        return graph.linear(graph.attend(x, graph.linear(x, cell.qkv), heads), cell.proj)
    x = graph.node("Mul", x, graph.column(cell.scale.asnumpy()))
    x = graph.node("Add", x, graph.column(cell.shift.asnumpy()))
    if isinstance(cell.mixer, Pooling):
        return graph.node("Sub", graph.average(x), x)
    if isinstance(cell.mixer, SpatialFc):
        return graph.mix_places(x, cell.mixer.fc.weight.asnumpy())
    return x
