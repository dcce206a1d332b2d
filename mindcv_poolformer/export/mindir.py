"""Writing a bundle: its graphs, their description, and the proof that both are right."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from ..data.detection.fitting import EvalTransform as PictureTransform
from ..data.detection.objects import Objects
from ..data.segmentation.labelling import Labelling
from ..models.dense.mask_rcnn import TwoPasses
from ..models.deploy import leave_out_ascend_operators, to_deploy
from ..models.parts.layout import layout
from ..models.parts.mixers import choose_attention
from ..runtime.cpu import unfused
from ..runtime.errors import UserError
from ..runtime.files import replaced_folder
from .bundle import LoadedGraph, load_graph
from .choices import Choices
from .description import (
    CIPHER,
    CLASSIFICATION,
    DESCRIPTION,
    DETECTION,
    FORMAT,
    MINDIR,
    ONNX,
    SEGMENTATION,
    AnyTransform,
    read_description,
    sha256,
    task_of,
)
from .ends import End, detector_ends, image_ends
from .golden import Comparison, Golden, compare
from .golden_objects import GoldenObjects, compare_objects
from .graph import (
    Proven,
    ServedDetector,
    ServedGraph,
    ServedTwoPasses,
    in_float16,
    write_air,
    write_mindir,
)
from .image_size import Size, shown
from .key import read_key_file
from .readme import README, write_readme
from .runtimes import Taken
from .settings import SETTINGS, write_settings

AIR = "model.air"
GOLDEN = "golden.npz"
DEFAULT = Choices()
Samples = np.ndarray | tuple[np.ndarray, np.ndarray]  # see write_bundle
AnyGolden = Golden | GoldenObjects
Ends = dict[str, Any]  # "batch_size" and "image_size" that a graph takes, None for any


class UnprovenError(UserError):
    """A bundle that does not give the checkpoint's logits.

    Args:
        message: what was found.
        file_format: of the graph.
    """

    def __init__(self, message: str, file_format: str) -> None:
        super().__init__(message)
        self.file_format = file_format


@dataclass(frozen=True, eq=False)
class Trained:
    """What is to be exported.

    Args:
        network: normalised images (N, C, H, W) to logits, a detector's to its maps, in fp32.
        model: name of the model.
        checkpoint: the file that the weights came from.
        transform: from an image to the network's input.
        classes: name of each output.
        labelling: of a segmenter, else None.
        objects: of a detector, else None.
    """

    network: nn.Cell
    model: str
    checkpoint: Path
    transform: AnyTransform
    classes: tuple[str, ...]
    labelling: Labelling | None = None
    objects: Objects | None = None

    @property
    def task(self) -> str:
        """Classification, segmentation or detection."""
        return task_of(self.labelling, self.objects)

    def told_size(self, size: Size) -> int | list[int]:
        """What model.json has for an image size: an edge of a classifier's, which are squares."""
        return size[0] if self.task == CLASSIFICATION else list(size)


def write_bundle(
    trained: Trained,
    target: str | Path,
    samples: Samples,
    choices: Choices = DEFAULT,
    *,
    further: Sequence[Samples] = (),
    origin: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the folder ``target``, which appears once it is proven, or not at all.

    The proof: read again, the bundle gives the outputs of ``trained.network`` on the samples. An
    older bundle at ``target`` stays until then.

    Args:
        trained: its network is left alone.
        target: the bundle to be.
        samples: (N, C, H, W) float32, real images through ``trained.transform``, a segmenter's
            stretched to the size of the graph; a detector's filled up to it, with (N, 2) int32,
            their heights and widths without the filling.
        choices: what the graphs are to be.
        further: samples of other image sizes, each of which gets graphs of its own.
        origin: where the samples are from, told in model.json beside what they prove.
        overwrite: replace a bundle at ``target``.

    Returns:
        the content of model.json.

    Raises:
        UserError: ``target`` exists and is not to be replaced, the key cannot be read, or the
            choices exclude each other.
        UnprovenError: the proof failed.
    """
    target = Path(target).resolve()
    _check_target(target, overwrite)
    choices.check()
    if trained.task == SEGMENTATION:
        choices.check_for_segmenter()
    if trained.task == DETECTION:
        choices = choices.for_detector()
    network = trained.network.set_train(False)
    with unfused():
        goldens = [_golden(trained, each) for each in (samples, *further)]
    # Fused for the CPU, the transpositions of a layout that is not its own would mix float16 up.
    fusing = unfused() if choices.layout == "NCHW" else contextlib.nullcontext()
    with replaced_folder(target) as staging, layout(choices.layout), fusing:
        network = to_deploy(network) if choices.deploy else deepcopy(network)
        leave_out_ascend_operators(network)
        if choices.flash_attention:
            choose_attention(network, flash=True)
        graphs = {}
        if choices.beside == "ONNX":
            graphs[ONNX] = _write_onnx(network, trained, goldens, choices, staging)
        graphs |= _write_mindirs(network, trained, goldens, choices, staging)
        answers = _write_goldens(goldens, staging)
        description = _describe(trained, choices, goldens[0], graphs, answers, staging)
        _write_description(staging, description)
        description["verification"] = [
            proof | {"samples": origin} for proof in _prove(staging, trained, goldens, choices)
        ]
        _write_description(staging, description)
        write_settings(staging, description)
        write_readme(staging, description)
    return description


def _golden(trained: Trained, samples: Samples) -> AnyGolden:
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


def _check_target(target: Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if not overwrite:
        raise UserError(f"export_dir: {target} exists, expected a new folder, or --overwrite")
    if not target.is_dir() or not all(map(_is_ours, target.iterdir())):
        raise UserError(
            f"export_dir: found {target} to be or to hold something else than a bundle, "
            "expected a bundle to overwrite"
        )


def _is_ours(entry: Path) -> bool:
    """Whether a file is one that an export writes."""
    if entry.name in (DESCRIPTION, SETTINGS, README, ONNX, AIR):
        return True
    return entry.match("model*.mindir") or entry.match("golden*.npz")


def _write_onnx(
    network: nn.Cell, trained: Trained, goldens: list[AnyGolden], choices: Choices, folder: Path
) -> Ends:
    """Write one ONNX graph, of any batch or image size where there are several."""
    from .onnx.write import write_onnx  # other formats do without the package onnx

    batch_size = _only(choices.batch_sizes)
    image_size = goldens[0].size if len(goldens) == 1 else None
    write_onnx(
        network,
        folder / ONNX,
        trained.transform,
        batch_size=batch_size,
        image_size=image_size,
        half=choices.precision == "fp16",
        takes=choices.takes,
        gives=choices.gives,
    )
    told = None if image_size is None else trained.told_size(image_size)
    return {"batch_size": batch_size, "image_size": told}


def _write_mindirs(
    network: nn.Cell, trained: Trained, goldens: list[AnyGolden], choices: Choices, folder: Path
) -> dict[str, Ends]:
    """Write a MINDIR for each image size and batch size, and AIR for the first of them.

    Returns:
        what each takes, by its file's name.
    """
    # In place: a network of two passes is called in parts, not as the cell that comes back.
    runner = in_float16(network) if choices.precision == "fp16" else network
    graph: nn.Cell
    if isinstance(network, TwoPasses):
        graph = ServedTwoPasses(network)
    elif trained.task == DETECTION:
        graph = ServedDetector(runner, network.selection)
    else:
        transform = trained.transform if choices.takes == "uint8" else None
        graph = ServedGraph(runner, transform, choices.gives == "probabilities")
    key = read_key_file(choices.key_file) if choices.key_file else None
    graphs: dict[str, Ends] = {}
    for golden in goldens:
        for batch_size in choices.batch_sizes or (None,):
            batch = "" if batch_size is None else f"_b{batch_size}"
            name = f"model_{shown(golden.size)}px{batch}.mindir" if graphs else MINDIR
            inputs, outputs = _ends(trained, choices, batch_size, golden.size)
            write_mindir(graph, inputs, outputs, folder / name, key)
            if choices.beside == "AIR" and not graphs:
                write_air(graph, inputs, folder / AIR)
            told = trained.told_size(golden.size)
            graphs[name] = {"batch_size": batch_size, "image_size": told}
    return graphs


def _ends(
    trained: Trained, choices: Choices, batch_size: int | None, size: Size
) -> tuple[list[End], list[End]]:
    """What a graph takes and gives."""
    channels = len(trained.transform.mean)
    if trained.objects is not None:
        objects = trained.objects
        return detector_ends(channels, objects.detections, size, objects.mask_edge)
    return image_ends(
        channels,
        len(trained.classes),
        batch_size=batch_size,
        image_size=size,
        takes=choices.takes,
        gives=choices.gives,
        segments=trained.task == SEGMENTATION,
    )


def _only(sizes: Sequence[int]) -> int | None:
    """The only one of several, None if there are others or none."""
    return sizes[0] if len(sizes) == 1 else None


def _write_goldens(goldens: list[AnyGolden], folder: Path) -> dict[str, str]:
    """Write a golden pair for each image size; give their files' names by size."""
    names: dict[str, str] = {}
    for golden in goldens:
        size = shown(golden.size)
        names[size] = f"golden_{size}px.npz" if names else GOLDEN
        golden.write(folder / names[size])
    return names


def _describe(
    trained: Trained,
    choices: Choices,
    golden: AnyGolden,
    graphs: dict[str, Ends],
    answers: dict[str, str],
    folder: Path,
) -> dict[str, Any]:
    """The content of model.json before the proof."""
    labelling, objects = trained.labelling, trained.objects
    task: dict[str, Any] = {"task": trained.task}
    if labelling is not None:
        task["palette"] = [list(colour) for colour in labelling.palette]
        task["reduce_zero_label"] = labelling.reduce_zero_label
    if objects is not None:
        task["palette"] = [list(colour) for colour in objects.palette]
        task["objects"] = objects.to_dict()
    inputs, outputs = _ends(trained, choices, _only(choices.batch_sizes), golden.size)
    further = {}
    if len(outputs) > 1:
        further = {
            "inputs": [end.told for end in inputs],
            "outputs": [end.told for end in outputs],
        }
    return {
        "format": FORMAT,
        "model": trained.model,
        "parameters": _count_parameters(trained.network),
        "form": "deploy" if choices.deploy else "plain",
        "precision": choices.precision,
        "input": {**inputs[0].told, "layout": "NHWC" if choices.takes == "uint8" else "NCHW"},
        "output": outputs[0].told,
        **further,
        "preprocessing": trained.transform.to_dict(),
        **task,
        "classes": list(trained.classes),
        "checkpoint": {"name": trained.checkpoint.name, "sha256": sha256(trained.checkpoint)},
        "graphs": graphs,
        "golden": answers,
        "encryption": CIPHER if choices.key_file else None,
        "files": {
            file.name: {"sha256": sha256(file), "size": file.stat().st_size}
            for file in sorted(folder.iterdir())
        },
        "mindspore": ms.__version__,
        "verification": None,
    }


def _count_parameters(network: nn.Cell) -> int:
    """Without the running statistics of batch norms, which no gradient moves."""
    return sum(p.size for p in network.get_parameters() if ".moving_" not in p.name)


def _prove(
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
                    f"{result.difference:.3g} off the checkpoint's on {result.images} images of "
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


def _write_description(folder: Path, description: dict[str, Any]) -> None:
    text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
    (folder / DESCRIPTION).write_text(text, encoding="utf-8")
