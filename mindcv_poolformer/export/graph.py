"""MINDIR and AIR files: the graph around a network."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from ..data.preprocess import EvalTransform
from ..data.segmentation.fitting import EvalTransform as SceneTransform
from ..runtime.amp import mixed_precision
from .description import CIPHER


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
