"""An ONNX graph in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from ...runtime import cores
from ...runtime.errors import UserError
from ..description import DESCRIPTION, Description, Graph

_TYPES = {"float32": "tensor(float)", "uint8": "tensor(uint8)", "int32": "tensor(int32)"}


def load_onnx(
    description: Description, graph: Graph, threads: int | None = None
) -> Callable[..., np.ndarray | tuple[np.ndarray, ...]]:
    """Load an ONNX graph, whose file is whole and fits its description, into ONNX Runtime.

    Args:
        threads: that compute one run; None for :func:`~mindcv_poolformer.runtime.cores.threads`.

    Returns:
        what runs it: from its inputs to its output, or all of several.

    Raises:
        UserError: it is not or does not.
    """
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    path = description.checked(graph.file)
    try:
        session = open_session(path, threads)
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
    return as_network(session)


def as_network(
    session: onnxruntime.InferenceSession,
) -> Callable[..., np.ndarray | tuple[np.ndarray, ...]]:
    """Call a graph with its inputs; one output, or all of several."""
    names = [end.name for end in session.get_inputs()]

    def run(*inputs: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        found = session.run(None, dict(zip(names, inputs, strict=True)))
        return found[0] if len(found) == 1 else tuple(found)

    return run


def open_session(path: Path, threads: int | None = None) -> onnxruntime.InferenceSession:
    """Load a graph on the CPU; ``threads`` as of :func:`load_onnx`, errors ONNX Runtime's own."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    # Its own choice knows nothing of a container's quota.
    options.intra_op_num_threads = threads or cores.threads()
    # A thread that spins while it waits takes the core of whoever decodes the next images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_mem_pattern = False  # memory for each batch size, a third more in all
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _check_fit(session: Any, path: Path, description: Description, graph: Graph) -> None:
    """Refuse a graph whose ends are not those that the description tells."""
    inputs, outputs = description.ends(graph)
    expected = [(_TYPES[end.dtype], _fixed(end.shape)) for end in (*inputs, *outputs)]
    given, answers = session.get_inputs(), session.get_outputs()
    found = [(end.type, _fixed(end.shape)) for end in (*given, *answers)]
    if len(given) != len(inputs) or found != expected:
        raise UserError(
            f"{path}: found a graph of {' to '.join(map(str, found))}, expected "
            f"{' to '.join(map(str, expected))} as {DESCRIPTION} tells"
        )


def _fixed(shape: Sequence[Any]) -> tuple[int | None, ...]:
    """None for an edge that may be any."""
    return tuple(edge if isinstance(edge, int) else None for edge in shape)
