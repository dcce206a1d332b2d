"""ONNX: the deploy form as a graph of standard operators, and ONNX Runtime to run it.

The graph is built here of the deploy form's weights. MindSpore 2.10's own ONNX export refuses a
dynamic batch, and on a CPU it would see the maps as ``kernels.py`` lays and multiplies them there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import Tensor, nn

from ..data.preprocess import EvalTransform
from ..models.deploy import Deployed, DeployedBlock
from ..models.deploy_hybrid import DeployedHybrid
from ..models.deploy_metaformer import DeployedMetaFormer
from ..models.kernels import as_convolution
from ..runtime.errors import UserError
from .description import DESCRIPTION, Description, Graph
from .onnx_hybrid import add_hybrid
from .onnx_metaformer import add_metaformer

OPSET = 17  # of 2022, and the file format of its time: old runtimes read them too
IR_VERSION = 8


class Builder:
    """Nodes and weights of a graph in the making; each call adds a node and names its output."""

    def __init__(self, half: bool) -> None:
        import onnx

        self.onnx = onnx
        self.half = half
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, values: np.ndarray | Sequence[float] | float) -> str:
        """A weight in float32; with ``half``, matrices are stored in float16 and cast."""
        values = np.asarray(values, np.float32)
        stored = values.astype(np.float16) if self.half and values.ndim > 1 else values
        name = f"weight_{len(self.weights)}"
        self.weights.append(self.onnx.numpy_helper.from_array(stored, name))
        if stored.dtype == np.float32:
            return name
        return self.node("Cast", name, to=self.onnx.TensorProto.FLOAT)

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

    def block(self, x: str, block: DeployedBlock) -> str:
        """As :meth:`DeployedBlock.construct`."""
        _, deviation = self.center(x, block.eps, (1, 2, 3))
        scale = self.node("Div", self.column(block.mixer_scale.asnumpy()), deviation)
        x = self.node("Add", x, self.node("Mul", scale, self.node("Sub", self.average(x), x)))
        y = self.standardize(x, block.eps, (1, 2, 3))
        y = self.conv(self.gelu(self.conv(y, block.mlp.fc1)), block.mlp.fc2)
        return self.node("Add", x, y)

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

    def column(self, vector: np.ndarray) -> str:
        """A vector (C,) as (C, 1, 1), in float32."""
        return self.node("Reshape", self.constant(vector), self.integers(len(vector), 1, 1))

    def integers(self, *values: int) -> str:
        """A vector of integers: a shape."""
        name = f"integers_{len(self.weights)}"
        values = np.array(values, np.int64)
        self.weights.append(self.onnx.numpy_helper.from_array(values, name))
        return name

    def network(self, x: str, model: Deployed) -> str:
        """As the deploy form's construct."""
        if isinstance(model, DeployedMetaFormer):
            return add_metaformer(self, x, model)
        if isinstance(model, DeployedHybrid):
            return add_hybrid(self, x, model)
        x = self.conv(x, model.patch_embed.proj)
        for part in model.network:
            if isinstance(part, nn.CellList):
                for block in part:
                    x = self.block(x, block)
            else:
                x = self.conv(x, part.proj)
        if model.norms_map:
            x = self.standardize(x, model.eps, (1, 2, 3))
        x = self.node("ReduceMean", x, axes=[2, 3], keepdims=0)
        if not model.norms_map:
            x = self.standardize(x, model.eps, (1,))
        head = (
            self.constant(model.head.weight.asnumpy()),
            self.constant(model.head.bias.asnumpy()),
        )
        return self.node("Gemm", x, *head, transB=1)

    def normalize(self, pixels: str, transform: EvalTransform) -> str:
        """Normalised (N, C, H, W) of pixels (N, H, W, C)."""
        x = self.node("Cast", pixels, to=self.onnx.TensorProto.FLOAT)
        x = self.node("Sub", x, self.constant(transform.mean))
        x = self.node("Div", x, self.constant(transform.std))
        return self.node("Transpose", x, perm=[0, 3, 1, 2])


def write_onnx(
    model: Deployed,
    path: Path,
    transform: EvalTransform,
    *,
    batch_size: int | None = None,
    image_size: int | None = None,
    half: bool = False,
    takes: str = "float32",
    gives: str = "logits",
) -> None:
    """Write an ONNX graph, checked by ONNX's checker; its ends are named as the MINDIR's.

    Args:
        model: the deploy form, float32.
        path: of the file.
        transform: normalises what a graph that takes uint8 gets.
        batch_size: the only one that the graph takes, None for any.
        image_size: edge of its images, None for any.
        half: store the weights in float16; arithmetic is in float32.
        takes: "float32", normalised images (N, C, H, W), or "uint8", pixels (N, H, W, C).
        gives: "logits" or "probabilities".
    """
    import onnx
    from onnx import TensorProto, helper

    pixels = takes == "uint8"
    graph = Builder(half)
    x = graph.normalize("images", transform) if pixels else "images"
    logits = graph.network(x, model)
    kind, settings = ("Softmax", {"axis": -1}) if gives == "probabilities" else ("Identity", {})
    graph.node(kind, logits, output=gives, **settings)
    batch, image = batch_size or "batch", [image_size or "height", image_size or "width"]
    channels = len(transform.mean)
    image = [*image, channels] if pixels else [channels, *image]
    element = TensorProto.UINT8 if pixels else TensorProto.FLOAT
    classes = model.num_classes
    proto = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "poolformer",
            [helper.make_tensor_value_info("images", element, [batch, *image])],
            [helper.make_tensor_value_info(gives, TensorProto.FLOAT, [batch, classes])],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="mindcv_poolformer",
    )
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString())


def load_onnx(description: Description, graph: Graph) -> Callable[[Tensor], Tensor]:
    """Load an ONNX graph, whose file is whole and fits its description, into ONNX Runtime.

    Raises:
        UserError: it is not or does not, or ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UserError(
            "file_format: found ONNX without the package onnxruntime, expected it: "
            'pip install ".[onnx]"'
        ) from None
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    path = description.checked(graph.file)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except (
        errors.Fail,
        errors.InvalidArgument,
        errors.InvalidGraph,
        errors.InvalidProtobuf,
        errors.NotImplemented,
    ) as error:
        raise UserError(
            f"{path}: found no graph that ONNX Runtime {onnxruntime.__version__} can load, "
            f"expected one ({' '.join(str(error).split())[:200]})"
        ) from None
    _check_fit(session, path, description, graph)
    (end,) = session.get_inputs()
    return lambda images: Tensor(session.run(None, {end.name: images.asnumpy()})[0])


def _check_fit(session: Any, path: Path, description: Description, graph: Graph) -> None:
    """Refuse a graph whose ends are not those that the description tells."""
    edge, channels = graph.image_size, len(description.transform.mean)
    pixels = description.takes == "uint8"
    image = (edge, edge, channels) if pixels else (channels, edge, edge)
    expected = [
        ("tensor(uint8)" if pixels else "tensor(float)", (graph.batch_size, *image)),
        ("tensor(float)", (graph.batch_size, len(description.classes))),
    ]
    ends = [*session.get_inputs(), *session.get_outputs()]
    found = [
        (end.type, tuple(size if isinstance(size, int) else None for size in end.shape))
        for end in ends
    ]
    if found != expected:
        raise UserError(
            f"{path}: found a graph of {' to '.join(map(str, found))}, expected "
            f"{' to '.join(map(str, expected))} as {DESCRIPTION} tells"
        )
