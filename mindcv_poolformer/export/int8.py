"""An INT8 graph and its proof: what it makes of images, beside the same graph in fp32."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.preprocess import EvalTransform, open_image
from ..runtime.counted import counted
from .bundle import LoadedGraph, load_graph
from .description import AnyTransform, read_description
from .golden import pixels_of
from .proof import UnprovenError

MOST_CALIBRATION_IMAGES = 128  # the ranges of activations hardly move with more
MOST_PROOF_IMAGES = 1000  # of which a point of top-1 is ten
# What INT8 may cost: what lies between poolformer_s24 and _s36; beyond that a smaller network does
# as well in fp32. Where no labels tell which answers are right, as many may differ as would cost
# that if every second of them were wrong.
MOST_TOP1_LOST = 1.0  # points
LEAST_AGREEMENT = 0.98
CHUNK = 32  # images in memory
INT8_WITH_FP32 = "int8 with fp32"  # what is compared, in model.json


@dataclass(frozen=True, eq=False)
class Int8Images:
    """Image files to calibrate an INT8 graph on and to prove it on.

    Args:
        calibration: at most 128.
        proof: at most 1,000.
        labels: (N,) of those to prove it on, which index the outputs; None where nobody tells.
        origin: of those to prove it on, for model.json.
    """

    calibration: Sequence[Path]
    proof: Sequence[Path]
    labels: np.ndarray | None
    origin: str


def evenly(count: int, most: int) -> np.ndarray:
    """At most so many places, evenly over ``count`` of them."""
    return np.linspace(0, count - 1, min(count, most)).astype(int)


def write_int8(
    source: Path,
    target: Path,
    images: Int8Images,
    transform: AnyTransform,
    edges: Sequence[int],
    takes: str,
) -> None:
    """Write the INT8 graph of one in fp32.

    Args:
        source: the graph in fp32.
        target: the file to be.
        images: to calibrate it on.
        transform: a classifier's, from an image to the network's input.
        edges: of the images that the graph is to take.
        takes: "float32" or "uint8", see :class:`Choices`.
    """
    from .onnx.quantise import quantise  # other precisions do without its tools

    assert isinstance(transform, EvalTransform)
    opened = [open_image(path, len(transform.mean)) for path in images.calibration]
    inputs = []
    for edge in edges:
        fitted = dataclasses.replace(transform, image_size=edge)
        normalised = np.stack([fitted(image) for image in opened])
        inputs.append(pixels_of(normalised, fitted) if takes == "uint8" else normalised)
    quantise(source, target, inputs)


def prove_int8(folder: Path, source: Path, images: Int8Images) -> list[dict[str, Any]]:
    """Compare a bundle's INT8 graph with the one in fp32, in ONNX Runtime, at each image size.

    Args:
        folder: the bundle.
        source: the graph in fp32.
        images: to prove it on.

    Returns:
        for each size what model.json tells: the share of images with the same class, and where
        there are labels the top-1 accuracies, in percent.

    Raises:
        UnprovenError: INT8 costs too much.
    """
    from .onnx.run import as_network, open_session

    description, fp32 = read_description(folder), as_network(open_session(source))
    proofs = []
    for size in description.image_sizes:
        graph = load_graph(description, size, runtime="onnx")
        found = _answers({"fp32": dataclasses.replace(graph, network=fp32), "int8": graph}, images)
        proof: dict[str, Any] = {
            "file_format": "ONNX",
            "image_size": size[0],
            "compared": INT8_WITH_FP32,
            "images": len(images.proof),
            "top1_agreement": float((found["int8"] == found["fp32"]).mean()),
        }
        if images.labels is not None:
            right = {name: (classes == images.labels).mean() for name, classes in found.items()}
            proof["top1"] = {name: 100 * float(share) for name, share in right.items()}
        _refuse_cost(proof)
        proofs.append(proof | {"samples": images.origin})
    return proofs


def _answers(
    graphs: Mapping[str, LoadedGraph[Any]], images: Int8Images
) -> Mapping[str, np.ndarray]:
    """The most probable class of each image, by each of several graphs that take the same."""
    first, *_ = graphs.values()
    answers: dict[str, list[np.ndarray]] = {name: [] for name in graphs}
    for start in range(0, len(images.proof), CHUNK):
        paths = images.proof[start : start + CHUNK]
        inputs = first.prepare(open_image(path, first.channels) for path in paths)
        for name, graph in graphs.items():
            answers[name].append(graph.outputs(inputs).argmax(1))
    return {name: np.concatenate(rows) for name, rows in answers.items()}


def _refuse_cost(proof: Mapping[str, Any]) -> None:
    """Refuse an INT8 graph that costs too much.

    Raises:
        UnprovenError: it does.
    """
    where = f"{counted(proof['images'], 'image')} of {proof['image_size']} px"
    if top1 := proof.get("top1"):
        passes = round(top1["fp32"] - top1["int8"], 6) <= MOST_TOP1_LOST
        found = f"top-1 {top1['int8']:.2f} % on {where}, where fp32 has {top1['fp32']:.2f} %"
        expected = f"at most {MOST_TOP1_LOST:.0f} point less"
    else:
        passes = proof["top1_agreement"] >= LEAST_AGREEMENT
        found = f"the top-1 of fp32 on {proof['top1_agreement']:.2%} of {where}"
        expected = f"at least {LEAST_AGREEMENT:.0%}"
    if not passes:
        raise UnprovenError(
            f"precision: found int8 with {found}, expected {expected}; nothing is kept", "ONNX"
        )
