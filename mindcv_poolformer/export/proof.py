"""The proof that a bundle gives its checkpoint's outputs on the samples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import Tensor

from ..data.detection.fitting import EvalTransform as PictureTransform
from ..models.dense.mask_rcnn import TwoPasses
from ..runtime.counted import counted
from ..runtime.errors import UserError
from .bundle import LoadedGraph, load_graph
from .choices import Choices
from .description import CLASSIFICATION, DETECTION, read_description
from .golden import Comparison, Golden, compare
from .golden_objects import GoldenObjects, compare_objects
from .graph import Proven
from .image_size import shown
from .runtimes import Taken
from .trained import Trained

GOLDEN = "golden.npz"
Samples = np.ndarray | tuple[np.ndarray, np.ndarray]  # see write_bundle
AnyGolden = Golden | GoldenObjects


class UnprovenError(UserError):
    """A bundle that does not give the checkpoint's logits.

    Args:
        message: what was found.
        file_format: of the graph.
    """

    def __init__(self, message: str, file_format: str) -> None:
        super().__init__(message)
        self.file_format = file_format


def golden_of(trained: Trained, samples: Samples) -> AnyGolden:
    """The checkpoint's answer to samples."""
    network, transform = trained.network, trained.transform
    if isinstance(transform, PictureTransform):
        images, shapes = samples
        two_passes = Proven(network) if isinstance(network, TwoPasses) else None
        one_by_one = []
        for i in range(len(images)):
            image, shape = Tensor(images[i : i + 1]), Tensor(shapes[i : i + 1].astype(np.int32))
            if two_passes is not None:
                found = two_passes(image, shape)
            else:
                found = network.selection.candidates(*network(image), shape)
            # Copied, since the next run may use the graph's memory.
            one_by_one.append([x.asnumpy().copy() for x in found])
        answer = tuple(map(np.concatenate, zip(*one_by_one, strict=True)))
        return GoldenObjects.of(images, shapes, transform, answer)
    assert isinstance(samples, np.ndarray)
    return Golden.of(samples, transform, network(Tensor(samples)).asnumpy().copy())


def write_goldens(goldens: list[AnyGolden], folder: Path) -> dict[str, str]:
    """Write a golden pair for each image size; give their files' names by size."""
    names: dict[str, str] = {}
    for golden in goldens:
        size = shown(golden.size)
        names[size] = f"golden_{size}px.npz" if names else GOLDEN
        golden.write(folder / names[size])
    return names


def prove(
    folder: Path, trained: Trained, goldens: list[AnyGolden], choices: Choices
) -> Iterator[dict[str, Any]]:
    """Compare the bundle in ``folder`` with the checkpoint, for each format and image size."""
    runtimes: dict[str, Taken] = {"MINDIR": "mindspore"}
    if choices.beside == "ONNX":
        runtimes["ONNX"] = "onnx"
    description = read_description(folder)
    for file_format, runtime in runtimes.items():
        for golden in goldens:
            size = shown(golden.size)
            graph = load_graph(description, golden.size, runtime=runtime, key_file=choices.key_file)
            result = _compare(graph, golden, trained)
            if not result.passes:
                raise UnprovenError(
                    f"export: found {result.compared} of the {file_format} up to "
                    f"{result.difference:.3g} off the checkpoint's on "
                    f"{counted(result.images, 'image')} of "
                    f"{size} px, expected at most {result.tolerance:.3g}; nothing is kept",
                    file_format,
                )
            yield {
                "file_format": file_format,
                "image_size": trained.told_size(golden.size),
                "compared": result.compared,
                "images": result.images,
                "max_abs_difference": result.difference,
                "tolerance": result.tolerance,
                **_told(result, trained.task),
            }


def _compare(graph: LoadedGraph[Any], golden: AnyGolden, trained: Trained) -> Comparison:
    if isinstance(golden, Golden):
        return compare(graph, golden)
    assert trained.objects is not None
    return compare_objects(graph, golden, trained.objects)


def _told(result: Comparison, task: str) -> dict[str, Any]:
    if task == DETECTION:
        return {"objects": result.objects}
    agreement = "top1_agreement" if task == CLASSIFICATION else "label_agreement"
    return {agreement: result.agreement}
