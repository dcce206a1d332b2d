"""An ONNX graph in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from ...runtime.cores import threads
from ...runtime.errors import UserError
from ..description import DESCRIPTION, Description, Graph


def load_onnx(description: Description, graph: Graph) -> Callable[[np.ndarray], np.ndarray]:
    """Load an ONNX graph, whose file is whole and fits its description, into ONNX Runtime.

    Raises:
        UserError: it is not or does not.
    """
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    path = description.checked(graph.file)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = threads()  # its own choice knows nothing of a container's quota
    # A thread that spins while it waits takes the core of whoever decodes the next images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_mem_pattern = False  # memory for each batch size, a third more in all
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
    return lambda images: session.run(None, {end.name: images})[0]


def _check_fit(session: Any, path: Path, description: Description, graph: Graph) -> None:
    """Refuse a graph whose ends are not those that the description tells."""
    channels, pixels = len(description.transform.mean), description.takes == "uint8"
    size = graph.image_size or (None, None)
    image = (*size, channels) if pixels else (channels, *size)
    answer: tuple[int | None, ...] = description.output_shape(graph.image_size or (1, 1))
    if graph.image_size is None:
        answer = (answer[0], *(None for _ in answer[1:]))
    expected = [
        ("tensor(uint8)" if pixels else "tensor(float)", (graph.batch_size, *image)),
        ("tensor(float)", (graph.batch_size, *answer)),
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
