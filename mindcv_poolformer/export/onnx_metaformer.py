"""A MetaFormer's deploy form as nodes of an ONNX graph; maps are (N, C, H, W) in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from mindspore import nn

from ..models.activations import StarReLU
from ..models.deploy_metaformer import (
    NORM_EPS,
    DeployedAttention,
    DeployedMetaFormer,
    DeployedMetaFormerBlock,
    DeployedMlpHead,
    DeployedPooling,
    DeployedSepConv,
    Linear,
)
from ..models.mixers import HEAD_CHANNELS, RandomMixing

if TYPE_CHECKING:
    from .onnx import Builder

CHANNELS, SAMPLE = (1,), (1, 2, 3)


def add_metaformer(graph: Builder, x: str, model: DeployedMetaFormer) -> str:
    """As :meth:`DeployedMetaFormer.construct`: from images to logits."""
    for downsampling, stage in zip(model.downsample_layers, model.stages, strict=True):
        if downsampling.is_stem:
            x = graph.standardize(graph.conv(x, downsampling.embed.proj), NORM_EPS, CHANNELS)
            x = _scale(graph, x, downsampling.gamma.asnumpy())
        else:
            x = graph.conv(graph.standardize(x, NORM_EPS, CHANNELS), downsampling.embed.proj)
        for block in stage:
            x = _block(graph, x, block)
    pooled = graph.node("ReduceMean", x, axes=[2, 3], keepdims=0)
    pooled = graph.standardize(pooled, NORM_EPS, (1,))
    head = model.head
    if isinstance(head, DeployedMlpHead):
        hidden = _squared_relu(graph, gemm(graph, pooled, head.fc1))
        return gemm(graph, graph.standardize(hidden, head.eps, (1,)), head.fc2)
    return gemm(graph, pooled, head)


def _block(graph: Builder, x: str, block: DeployedMetaFormerBlock) -> str:
    axes = SAMPLE if block.standardize.over_sample else CHANNELS
    x = graph.node("Add", _residual(graph, x, block.res_scale1), _mix(graph, x, block.mixer, axes))
    y = linear(graph, graph.standardize(x, NORM_EPS, axes), block.fc1)
    y = linear(graph, _squared_relu(graph, y), block.fc2)
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
        y = _star_relu(graph, linear(graph, x, mixer.pwconv1), mixer.act1)
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
        return linear(graph, y, mixer.pwconv2)
    if isinstance(mixer, DeployedAttention):
        heads = len(mixer.proj.weight) // HEAD_CHANNELS
        y = attend(graph, x, linear(graph, x, mixer.qkv), heads)
        return linear(graph, y, mixer.proj)
    if isinstance(mixer.mixer, RandomMixing):
        x = graph.mix_places(x, mixer.mixer.random_matrix.asnumpy())
    return _scale(graph, x, mixer.scale.asnumpy())


def attend(graph: Builder, x: str, qkv: str, heads: int) -> str:
    """Softmax(q^T k) of maps of q, k and v, each head for itself; q comes scaled."""
    shape = graph.integers(0, 3, heads, HEAD_CHANNELS, -1)
    rows = graph.node("Reshape", qkv, shape)
    q, k, v = (
        graph.node("Squeeze", graph.node("Slice", rows, *ends), graph.integers(1))
        for ends in (
            (graph.integers(i), graph.integers(i + 1), graph.integers(1)) for i in range(3)
        )
    )  # (N, heads, 32, places)
    scores = graph.node("MatMul", graph.node("Transpose", q, perm=[0, 1, 3, 2]), k)
    weights = graph.node("Transpose", graph.node("Softmax", scores, axis=-1), perm=[0, 1, 3, 2])
    return graph.node("Reshape", graph.node("MatMul", v, weights), graph.node("Shape", x))


def linear(graph: Builder, x: str, layer: Linear) -> str:
    """A linear layer at every place: a 1x1 convolution."""
    inputs = [x, graph.constant(layer.weight.asnumpy().T[:, :, None, None])]
    if layer.has_bias:
        inputs.append(graph.constant(layer.bias.asnumpy()))
    return graph.node("Conv", *inputs, kernel_shape=[1, 1])


def gemm(graph: Builder, x: str, layer: Linear) -> str:
    """A linear layer (N, C) to (N, O)."""
    weight, bias = layer.weight.asnumpy(), layer.bias.asnumpy()
    return graph.node("Gemm", x, graph.constant(weight), graph.constant(bias))


def _squared_relu(graph: Builder, x: str) -> str:
    positive = graph.node("Relu", x)
    return graph.node("Mul", positive, positive)


def _star_relu(graph: Builder, x: str, act: StarReLU) -> str:
    scaled = graph.node("Mul", _squared_relu(graph, x), graph.constant(act.scale.asnumpy()))
    return graph.node("Add", scaled, graph.constant(act.bias.asnumpy()))


def _scale(graph: Builder, x: str, vector: np.ndarray) -> str:
    return graph.node("Mul", x, graph.column(vector))
