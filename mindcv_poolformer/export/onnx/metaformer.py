"""A MetaFormer's deploy form as nodes of an ONNX graph; maps are (N, C, H, W) in it."""

from __future__ import annotations

import numpy as np
from mindspore import nn

from ...models.deploy.metaformer import (
    NORM_EPS,
    DeployedAttention,
    DeployedMetaFormer,
    DeployedMetaFormerBlock,
    DeployedMlpHead,
    DeployedPooling,
    DeployedSepConv,
)
from ...models.parts.activations import StarReLU
from ...models.parts.mixers import HEAD_CHANNELS, RandomMixing
from .builder import CHANNELS, SAMPLE, Builder


def add_metaformer(graph: Builder, x: str, model: DeployedMetaFormer) -> str:
    """As :meth:`DeployedMetaFormer.construct`: from images to logits."""
    x = metaformer_stages(graph, x, model)[-1]
    pooled = graph.node("ReduceMean", x, axes=[2, 3], keepdims=0)
    pooled = graph.standardize(pooled, NORM_EPS, CHANNELS)
    head = model.head
    if isinstance(head, DeployedMlpHead):
        hidden = _squared_relu(graph, graph.gemm(pooled, head.fc1))
        return graph.gemm(graph.standardize(hidden, head.eps, CHANNELS), head.fc2)
    return graph.gemm(pooled, head)


def metaformer_stages(graph: Builder, x: str, model: DeployedMetaFormer) -> list[str]:
    """As :meth:`DeployedMetaFormer.stage_maps`: from images to the map after each stage."""
    maps = []
    for downsampling, stage in zip(model.downsample_layers, model.stages, strict=True):
        if downsampling.is_stem:
            x = graph.standardize(graph.conv(x, downsampling.embed.proj), NORM_EPS, CHANNELS)
            x = _scale(graph, x, downsampling.gamma.asnumpy())
        else:
            x = graph.conv(graph.standardize(x, NORM_EPS, CHANNELS), downsampling.embed.proj)
        for block in stage:
            x = _block(graph, x, block)
        maps.append(x)
    return maps


def _block(graph: Builder, x: str, block: DeployedMetaFormerBlock) -> str:
    axes = SAMPLE if block.standardize.over_sample else CHANNELS
    x = graph.node("Add", _residual(graph, x, block.res_scale1), _mix(graph, x, block.mixer, axes))
    y = graph.linear(graph.standardize(x, NORM_EPS, axes), block.fc1)
    y = graph.linear(_squared_relu(graph, y), block.fc2)
    return graph.node("Add", _residual(graph, x, block.res_scale2), y)


def _residual(graph: Builder, x: str, scale: nn.Cell) -> str:
    return x if isinstance(scale, nn.Identity) else _scale(graph, x, scale.scale.asnumpy())


def _mix(graph: Builder, x: str, mixer: nn.Cell, axes: tuple[int, ...]) -> str:
    if isinstance(mixer, DeployedPooling):
        _, deviation = graph.center(x, NORM_EPS, axes)
        pooled = graph.node("Sub", graph.average(x), x)
        return _scale(graph, graph.node("Div", pooled, deviation), mixer.scale.asnumpy())
    x = graph.standardize(x, NORM_EPS, axes)
    if isinstance(mixer, DeployedSepConv):
        y = _star_relu(graph, graph.linear(x, mixer.pwconv1), mixer.act1)
        weight = mixer.dwconv.weight.asnumpy()
        edge = weight.shape[-1]
        y = graph.node(
            "Conv",
            y,
            graph.constant(weight),
            kernel_shape=[edge, edge],
            pads=[edge // 2] * 4,
            group=len(weight),
        )
        return graph.linear(y, mixer.pwconv2)
    if isinstance(mixer, DeployedAttention):
        heads = len(mixer.proj.weight) // HEAD_CHANNELS
        y = graph.attend(x, graph.linear(x, mixer.qkv), heads)
        return graph.linear(y, mixer.proj)
    if isinstance(mixer.mixer, RandomMixing):
        x = graph.mix_places(x, mixer.mixer.random_matrix.asnumpy())
    return _scale(graph, x, mixer.scale.asnumpy())


def _squared_relu(graph: Builder, x: str) -> str:
    positive = graph.node("Relu", x)
    return graph.node("Mul", positive, positive)


def _star_relu(graph: Builder, x: str, act: StarReLU) -> str:
    scaled = graph.node("Mul", _squared_relu(graph, x), graph.constant(act.scale.asnumpy()))
    return graph.node("Add", scaled, graph.constant(act.bias.asnumpy()))


def _scale(graph: Builder, x: str, vector: np.ndarray) -> str:
    return graph.node("Mul", x, graph.column(vector))
