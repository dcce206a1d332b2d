"""A MINDIR in MindSpore."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from google.protobuf.message import DecodeError
from mindspore import Tensor, nn
from mindspore._c_expression import _decrypt
from mindspore.train.mind_ir_pb2 import ModelProto, TensorProto

from ..runtime.errors import UserError
from ..runtime.mindspore_log import logged_on_success
from .description import CIPHER, DESCRIPTION, Description, Graph, check_version

_TYPES = {
    "float32": TensorProto.FLOAT,
    "uint8": TensorProto.UINT8,
    "int32": TensorProto.INT32,
}


def load_mindir(
    description: Description, graph: Graph, key: bytes | None
) -> Callable[..., np.ndarray | tuple[np.ndarray, ...]]:
    """Load a MINDIR whose file is whole and fits its description.

    Returns:
        what runs it on the device that MindSpore is set to: from its inputs to its output, or all
        of several.

    Raises:
        UserError: it is not and does not, a newer MindSpore wrote it, or the key is not its own.
    """
    path = description.checked(graph.file)
    check_version(path, description.written_with, ms.__version__)
    _check_fit(_parse(path, key), path, description, graph)
    secret = {} if key is None else {"dec_key": key, "dec_mode": CIPHER}
    try:
        with logged_on_success():
            network = nn.GraphCell(ms.load(str(path), **secret))
    except (RuntimeError, ValueError):
        raise _unloadable(path, description) from None

    # Copied, since the next run may use the graph's memory.
    def run(*inputs: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        found = network(*map(Tensor, inputs))
        if isinstance(found, tuple):
            return tuple(one.asnumpy().copy() for one in found)
        return found.asnumpy().copy()

    return run


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
    inputs, outputs = description.ends(graph)
    told = [*inputs, *outputs]
    expected = [tuple(-1 if isinstance(edge, str) else edge for edge in end.shape) for end in told]
    ends = [tensor for end in model.graph.input for tensor in end.tensor]
    ends += _answers(model.graph)
    found = [tuple(end.dims) for end in ends]
    if len(model.graph.input) != len(inputs) or found != expected:
        raise UserError(
            f"{path}: found a graph of {' to '.join(map(str, found))}, expected "
            f"{' to '.join(map(str, expected))} as {DESCRIPTION} tells"
        )
    if [end.data_type for end in ends] != [_TYPES[end.dtype] for end in told]:
        raise UserError(
            f"{path}: found a graph of other types than {' to '.join(end.dtype for end in told)}, "
            f"expected these as {DESCRIPTION} tells"
        )


def _answers(graph: Any) -> list[Any]:
    """The tensors that a graph gives: its output's, or those of a tuple, which its node tells."""
    output = graph.output[0]
    if output.tensor:
        return [output.tensor[0]]
    return [
        value.tensors[0]
        for node in graph.node
        if output.name in node.output
        for attribute in node.attribute
        if attribute.name == "shape"
        for value in attribute.values
        if value.tensors
    ]


def _unloadable(path: Path, description: Description) -> UserError:
    return UserError(
        f"{path}: found no MINDIR that MindSpore {ms.__version__} can load, "
        f"expected one; it was written with {description.written_with}"
    )
