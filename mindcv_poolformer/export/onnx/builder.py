"""A graph of ONNX's standard operators in the making; it knows layers, and no network."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from mindspore import nn

from ...models.parts.convolutions import as_convolution
from ...models.parts.mixers import HEAD_CHANNELS
from ..description import AnyTransform

CHANNELS, SAMPLE = (1,), (1, 2, 3)  # axes of a map (N, C, H, W)


class Builder:
    """Nodes and weights of a graph in the making; each call adds a node and names its output."""

    def __init__(self, half: bool) -> None:
        import onnx

        self.onnx = onnx
        self.half = half
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._names: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, values: np.ndarray | Sequence[float] | float) -> str:
        """A weight in float32; with ``half``, matrices are stored in float16 and cast."""
        values = np.asarray(values, np.float32)
        return self._weight(values.astype(np.float16) if self.half and values.ndim > 1 else values)

    def _weight(self, values: np.ndarray) -> str:
        """Where equal ones are asked for again, as by a head of all levels, it is one."""
        key = values.dtype.str, values.shape, hashlib.sha256(values.tobytes()).digest()
        if key not in self._names:
            name = f"weight_{len(self.weights)}"
            self.weights.append(self.onnx.numpy_helper.from_array(values, name))
            if values.dtype == np.float16:
                name = self.node("Cast", name, to=self.onnx.TensorProto.FLOAT)
            self._names[key] = name
        return self._names[key]

    def conv(self, x: str, cell: nn.Conv2d) -> str:
        size, stride, padding = cell.kernel_size[0], cell.stride[0], cell.padding
        return self.node(
            "Conv",
            x,
            self.constant(as_convolution(cell)),
            self.constant(cell.bias.asnumpy()),
            kernel_shape=[size, size],
            strides=[stride, stride],
            pads=[padding] * 4,
        )

    def resize_nearest(self, x: str, like: str) -> str:
        """Place i of a map as large as another is floor(i * old / new) of the old."""
        return self._resize(
            x,
            "",
            self._size_of(x, like),
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )

    def resize_bilinear(self, x: str, like: str) -> str:
        """A map as large as another; half-pixel centres."""
        return self._resize(x, "", self._size_of(x, like), mode="linear")

    def double(self, x: str) -> str:
        """A map of twice the height and width, bilinear."""
        return self._resize(x, self.constant([1, 1, 2, 2]), mode="linear")

    def _resize(self, x: str, *sizes: str, **attributes: Any) -> str:
        """Resize by scales, or by sizes behind an empty name; half-pixel centres by default."""
        return self.node("Resize", x, "", *sizes, **attributes)

    def _size_of(self, x: str, like: str) -> str:
        """Batch and channels of ``x``, height and width of ``like``."""
        own, other = self.node("Shape", x, end=2), self.node("Shape", like, start=2)
        return self.node("Concat", own, other, axis=0)

    def center(self, x: str, eps: float, axes: Sequence[int]) -> tuple[str, str]:
        """Each sample less its mean, and its deviation."""
        centred = self.node("Sub", x, self.node("ReduceMean", x, axes=axes, keepdims=1))
        squares = self.node("Mul", centred, centred)
        variance = self.node("ReduceMean", squares, axes=axes, keepdims=1)
        deviation = self.node("Sqrt", self.node("Add", variance, self.constant(eps)))
        return centred, deviation

    def standardize(self, x: str, eps: float, axes: Sequence[int]) -> str:
        """Each sample less its mean, divided by its deviation."""
        return self.node("Div", *self.center(x, eps, axes))

    def gelu(self, x: str) -> str:
        erf = self.node("Erf", self.node("Div", x, self.constant(math.sqrt(2))))
        twice = self.node("Mul", x, self.node("Add", erf, self.constant(1.0)))
        return self.node("Mul", twice, self.constant(0.5))

    def average(self, x: str) -> str:
        """3x3 average pooling; the padding does not count in the mean."""
        return self.node(
            "AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1], count_include_pad=0
        )

    def mix_places(self, x: str, weight: np.ndarray) -> str:
        """Each place's sum of all places of its channel, by a weight (places, places)."""
        rows = self.node("Reshape", x, self.integers(0, 0, -1))
        mixed = self.node("MatMul", rows, self.constant(weight.T))
        return self.node("Reshape", mixed, self.node("Shape", x))

    def top(self, x: str, most: int | None = None, largest: bool = True) -> tuple[str, str]:
        """The largest of a vector, or the smallest, and their places, int64; the farthest first.

        At most so many, None for all.
        """
        count = self.node("Shape", x)
        if most is not None:
            count = self.node("Min", self.integers(most), count)
        ends = f"top_{len(self.nodes)}", f"places_{len(self.nodes)}"
        node = self.onnx.helper.make_node("TopK", [x, count], ends, axis=0, largest=int(largest))
        self.nodes.append(node)
        return ends

    def columns(self, x: str, begin: int, end: int) -> str:
        """Columns ``begin`` to ``end`` - 1 of a matrix."""
        return self.node("Slice", x, self.integers(begin), self.integers(end), self.integers(1))

    def column(self, vector: np.ndarray) -> str:
        """A vector (C,) as (C, 1, 1), in float32."""
        return self.node("Reshape", self.constant(vector), self.integers(len(vector), 1, 1))

    def integers(self, *values: int) -> str:
        """A vector of integers: a shape."""
        return self._weight(np.array(values, np.int64))

    def attend(self, x: str, qkv: str, heads: int) -> str:
        """Softmax(q^T k) of maps of q, k and v, each head for itself; q comes scaled."""
        shape = self.integers(0, 3, heads, HEAD_CHANNELS, -1)
        rows = self.node("Reshape", qkv, shape)
        q, k, v = (
            self.node("Squeeze", self.node("Slice", rows, *ends), self.integers(1))
            for ends in (
                (self.integers(i), self.integers(i + 1), self.integers(1)) for i in range(3)
            )
        )  # (N, heads, 32, places)
        scores = self.node("MatMul", self.node("Transpose", q, perm=[0, 1, 3, 2]), k)
        weights = self.node("Transpose", self.node("Softmax", scores, axis=-1), perm=[0, 1, 3, 2])
        return self.node("Reshape", self.node("MatMul", v, weights), self.node("Shape", x))

    def linear(self, x: str, layer: nn.Cell) -> str:
        """A linear layer at every place: a 1x1 convolution."""
        inputs = [x, self.constant(layer.weight.asnumpy().T[:, :, None, None])]
        if layer.has_bias:
            inputs.append(self.constant(layer.bias.asnumpy()))
        return self.node("Conv", *inputs, kernel_shape=[1, 1])

    def gemm(self, x: str, layer: nn.Cell) -> str:
        """A linear layer (N, C) to (N, O)."""
        weight, bias = layer.weight.asnumpy(), layer.bias.asnumpy()
        return self.node("Gemm", x, self.constant(weight), self.constant(bias))

    def normalize(self, pixels: str, transform: AnyTransform) -> str:
        """Normalised (N, C, H, W) of pixels (N, H, W, C)."""
        x = self.node("Cast", pixels, to=self.onnx.TensorProto.FLOAT)
        x = self.node("Sub", x, self.constant(transform.mean))
        x = self.node("Div", x, self.constant(transform.std))
        return self.node("Transpose", x, perm=[0, 3, 1, 2])
