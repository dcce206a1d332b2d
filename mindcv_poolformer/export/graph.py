"""MINDIR and AIR files: the graph around a network, written and read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
from google.protobuf.message import DecodeError
from mindspore import Tensor, nn, ops
from mindspore._c_expression import _decrypt
from mindspore.train.mind_ir_pb2 import ModelProto, TensorProto

from ..data.preprocess import EvalTransform
from ..data.segmentation.transforms import EvalTransform as SceneTransform
from ..runtime.amp import mixed_precision
from ..runtime.errors import UserError
from ..runtime.mindspore_log import logged_on_success
from .description import CIPHER, DESCRIPTION, Description, Graph, check_version

_TYPES = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8}


class ServedGraph(nn.Cell):
    """A network with named ends, without training's further inputs.

    Args:
        network: normalised images (N, C, H, W) to logits (N, classes), or of each place
            (N, classes, h, w).
        transform: normalises pixels (N, H, W, C) uint8, which the graph then takes; None if it
            takes normalised images.
        probabilities: give these instead of logits.
    """

    def __init__(
        self,
        network: nn.Cell,
        transform: EvalTransform | SceneTransform | None,
        probabilities: bool,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.normalizes = transform is not None
        self.probabilities = probabilities
        if transform is not None:
            self.mean = Tensor(transform.mean, ms.float32)
            self.std = Tensor(transform.std, ms.float32)
        self.set_train(False)

    def construct(self, images: Tensor) -> Tensor:
        if self.normalizes:
            images = (images.astype(ms.float32) - self.mean) / self.std
            images = images.transpose(0, 3, 1, 2)
        logits = self.network(images)
        return ops.softmax(logits, -1) if self.probabilities else logits


def in_float16(network: nn.Cell) -> nn.Cell:
    """Convert ``network``; mixed precision alone would store float32 weights."""
    converted = mixed_precision(network, "O3")
    for parameter in network.get_parameters():
        parameter.set_dtype(ms.float16)
    return converted


def write_mindir(
    graph: ServedGraph, shape: Sequence[int | None], path: Path, key: bytes | None
) -> None:
    """Write ``path``, for an input of ``shape``, where None stands for any size."""
    secret = {} if key is None else {"enc_key": key, "enc_mode": CIPHER}
    gives = "probabilities" if graph.probabilities else "logits"
    with _compiling_in(path.parent):
        ms.export(
            graph,
            _placeholder(graph, shape),
            file_name=path.name,
            file_format="MINDIR",
            custom_func=lambda model: _name_ends(model, gives),
            **secret,
        )


def write_air(graph: ServedGraph, shape: Sequence[int | None], path: Path) -> None:
    """Write ``path``; only an Ascend device can."""
    with _compiling_in(path.parent):
        ms.export(graph, _placeholder(graph, shape), file_name=path.name, file_format="AIR")


def load_mindir(description: Description, graph: Graph, key: bytes | None) -> nn.GraphCell:
    """Load a MINDIR whose file is whole and fits its description.

    Raises:
        UserError: it is not and does not, a newer MindSpore wrote it, or the key is not its own.
    """
    path = description.checked(graph.file)
    check_version(path, description.written_with, ms.__version__)
    _check_fit(_parse(path, key), path, description, graph)
    secret = {} if key is None else {"dec_key": key, "dec_mode": CIPHER}
    try:
        with logged_on_success():
            return nn.GraphCell(ms.load(str(path), **secret))
    except (RuntimeError, ValueError):
        raise _unloadable(path, description) from None


def _parse(path: Path, key: bytes | None) -> ModelProto | None:
    """The content of a MINDIR; None if it is none, which MindSpore then says too."""
    if key is None:
        content = path.read_bytes()
    else:
        with logged_on_success():
            content = _decrypt(str(path), key, len(key), CIPHER)
        if not content:
            raise UserError(f"{path}: found it locked with another key, expected its own")
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError:
        return None
    return model


def _check_fit(
    model: ModelProto | None, path: Path, description: Description, graph: Graph
) -> None:
    """Refuse a graph whose ends are not those that the description tells."""
    if model is None or not (model.graph.input and model.graph.output):
        raise _unloadable(path, description)
    check_version(path, model.model_version or description.written_with, ms.__version__)
    assert graph.image_size is not None  # of an ONNX graph alone
    size, channels = graph.image_size, len(description.transform.mean)
    image = (*size, channels) if description.takes == "uint8" else (channels, *size)
    batch = graph.batch_size or -1
    expected = [(batch, *image), (batch, *description.output_shape(size))]
    types = [_TYPES[description.takes], TensorProto.FLOAT]
    ends = [end.tensor[0] for end in (model.graph.input[0], model.graph.output[0]) if end.tensor]
    found = [tuple(end.dims) for end in ends]
    if len(model.graph.input) != 1 or found != expected:
        raise UserError(
            f"{path}: found a graph of {' to '.join(map(str, found))}, expected "
            f"{' to '.join(map(str, expected))} as {DESCRIPTION} tells"
        )
    if [end.data_type for end in ends] != types:
        raise UserError(
            f"{path}: found a graph of other types than {description.takes} to float32, "
            f"expected these as {DESCRIPTION} tells"
        )


def _unloadable(path: Path, description: Description) -> UserError:
    return UserError(
        f"{path}: found no MINDIR that MindSpore {ms.__version__} can load, "
        f"expected one; it was written with {description.written_with}"
    )


def _placeholder(graph: ServedGraph, shape: Sequence[int | None]) -> Tensor:
    return Tensor(shape=list(shape), dtype=ms.uint8 if graph.normalizes else ms.float32)


@contextlib.contextmanager
def _compiling_in(folder: Path) -> Iterator[None]:
    """Change the working directory, and to graph mode.

    ms.export refuses paths with a blank or an accent in them. And it compiles in any mode, while
    the Cells ask for the mode: in PyNative they would give the operators that fuse to nothing.
    """
    before, mode = Path.cwd(), ms.get_context("mode")
    os.chdir(folder)
    ms.set_context(mode=ms.GRAPH_MODE)
    try:
        yield
    finally:
        ms.set_context(mode=mode)
        os.chdir(before)


def _name_ends(model: Any, gives: str) -> None:
    """Call the graph's input "images" and its output ``gives``; MindSpore puts the pid in both.

    Args:
        model: MindSpore's protocol buffer of the MINDIR, changed in place.
        gives: the output's name.
    """
    graph = model.graph
    names = {graph.input[0].name: "images", graph.output[0].name: gives}
    for node in graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(end, end) for end in ends]
    graph.input[0].name, graph.output[0].name = "images", gives
