"""A PoolFormer's deploy form as nodes of an ONNX graph; maps are (N, C, H, W) in it."""

from __future__ import annotations

from mindspore import nn

from ...models.deploy.poolformer import DeployedBlock, DeployedPoolFormer
from .builder import CHANNELS, SAMPLE, Builder


def add_poolformer(graph: Builder, x: str, model: DeployedPoolFormer) -> str:
    """As :meth:`DeployedPoolFormer.construct`: from images to logits."""
    x = poolformer_stages(graph, x, model)[-1]
    if model.norms_map:
        x = graph.standardize(x, model.eps, SAMPLE)
    x = graph.node("ReduceMean", x, axes=[2, 3], keepdims=0)
    if not model.norms_map:
        x = graph.standardize(x, model.eps, CHANNELS)
    head = (
        graph.constant(model.head.weight.asnumpy()),
        graph.constant(model.head.bias.asnumpy()),
    )
    return graph.node("Gemm", x, *head, transB=1)


def poolformer_stages(graph: Builder, x: str, model: DeployedPoolFormer) -> list[str]:
    """As :meth:`DeployedPoolFormer.stage_maps`: from images to the map after each stage."""
    x = graph.conv(x, model.patch_embed.proj)
    maps = []
    for part in model.network:
        if isinstance(part, nn.CellList):
            for block in part:
                x = _block(graph, x, block)
            maps.append(x)
        else:
            x = graph.conv(x, part.proj)
    return maps


def _block(graph: Builder, x: str, block: DeployedBlock) -> str:
    """As :meth:`DeployedBlock.construct`."""
    _, deviation = graph.center(x, block.eps, SAMPLE)
    scale = graph.node("Div", graph.column(block.mixer_scale.asnumpy()), deviation)
    x = graph.node("Add", x, graph.node("Mul", scale, graph.node("Sub", graph.average(x), x)))
    y = graph.standardize(x, block.eps, SAMPLE)
    y = graph.conv(graph.gelu(graph.conv(y, block.mlp.fc1)), block.mlp.fc2)
    return graph.node("Add", x, y)
