"""MINDIR and AIR files: the graph around a network."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from ..runtime.amp import mixed_precision
from ..runtime.device import in_mode
from .description import CIPHER, AnyTransform
from .ends import End


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
        transform: AnyTransform | None,
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


class ServedDetector(nn.Cell):
    """A detector with named ends.

    Args:
        network: normalised images (N, C, H, W) to maps.
        selection: from these to objects, in float32 whatever the network's precision.
    """

    def __init__(self, network: nn.Cell, selection: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.selection = selection
        self.set_train(False)

    def construct(self, images: Tensor, shapes: Tensor) -> tuple[Tensor, ...]:
        logits, deltas = self.network(images)
        return self.selection(logits, deltas, shapes)


class ServedTwoPasses(nn.Cell):
    """A Mask R-CNN with named ends; boxes are in float32 whatever its precision.

    Args:
        network: a :class:`TwoPasses`, which casts what each of its parts is given.
    """

    takes_boxes = True  # see :mod:`runtime.amp`

    def __init__(self, network: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.set_train(False)

    def construct(
        self, images: Tensor, shapes: Tensor, scale_factors: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        return self.network.detect(images, shapes, scale_factors)


class Proven(nn.Cell):
    """A Mask R-CNN to its candidates, and to its objects, as :class:`GoldenObjects` wants them.

    Args:
        network: a :class:`TwoPasses`.
    """

    def __init__(self, network: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.set_train(False)

    def construct(self, images: Tensor, shapes: Tensor) -> tuple[Tensor, ...]:
        told = self.network.detect_with_candidates(images, shapes)
        return *told[1], *told[2]


def in_float16(network: nn.Cell) -> nn.Cell:
    """Convert ``network``; mixed precision alone would store float32 weights."""
    converted = mixed_precision(network, "O3")
    for parameter in network.get_parameters():
        parameter.set_dtype(ms.float16)
    return converted


def write_mindir(
    graph: nn.Cell,
    inputs: Sequence[End],
    outputs: Sequence[End],
    path: Path,
    key: bytes | None,
) -> None:
    """Write ``path``, for inputs of a shape, where a word stands for any size."""
    secret = {} if key is None else {"enc_key": key, "enc_mode": CIPHER}
    with _compiling_in(path.parent):
        ms.export(
            graph,
            *map(_placeholder, inputs),
            file_name=path.name,
            file_format="MINDIR",
            custom_func=lambda model: _name_ends(model, inputs, outputs),
            **secret,
        )


def write_air(graph: nn.Cell, inputs: Sequence[End], path: Path) -> None:
    """Write ``path``; only an Ascend device can."""
    with _compiling_in(path.parent):
        placeholders = map(_placeholder, inputs)
        ms.export(graph, *placeholders, file_name=path.name, file_format="AIR")


def _placeholder(end: End) -> Tensor:
    shape = [edge if isinstance(edge, int) else None for edge in end.shape]
    return Tensor(shape=shape, dtype=getattr(ms, end.dtype))


@contextlib.contextmanager
def _compiling_in(folder: Path) -> Iterator[None]:
    """Change the working directory, and to graph mode.

    ms.export refuses paths with a blank or an accent in them. And it compiles in any mode, while
    the Cells ask for the mode: in PyNative they would give the operators that fuse to nothing.
    """
    before = Path.cwd()
    os.chdir(folder)
    try:
        with in_mode(ms.GRAPH_MODE):
            yield
    finally:
        os.chdir(before)


def _name_ends(model: Any, inputs: Sequence[End], outputs: Sequence[End]) -> None:
    """Give a graph's ends their names; MindSpore puts the pid in them.

    Several outputs are one end of the graph, a tuple, by the names of all.

    Args:
        model: MindSpore's protocol buffer of the MINDIR, changed in place.
        inputs: with the names.
        outputs: with the names.
    """
    graph = model.graph
    named = [(found, end.name) for found, end in zip(graph.input, inputs, strict=True)]
    named.append((graph.output[0], ",".join(end.name for end in outputs)))
    names = {found.name: name for found, name in named}
    for node in graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(end, end) for end in ends]
    for found, name in named:
        found.name = name
