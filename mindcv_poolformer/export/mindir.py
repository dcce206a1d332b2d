"""Writing a bundle: its graphs, their description, and the proof that both are right."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import nn

from ..models.dense.mask_rcnn import TwoPasses
from ..models.deploy import leave_out_ascend_operators, to_deploy
from ..models.parts.layout import layout
from ..models.parts.mixers import choose_attention
from ..runtime.cpu import unfused
from ..runtime.device import in_mode
from ..runtime.errors import UserError
from ..runtime.files import replaced_folder, sha256
from .choices import Choices
from .description import (
    CIPHER,
    DESCRIPTION,
    DETECTION,
    FORMAT,
    MINDIR,
    ONNX,
    SEGMENTATION,
)
from .ends import End, detector_ends, image_ends
from .graph import (
    ServedDetector,
    ServedGraph,
    ServedTwoPasses,
    in_float16,
    write_air,
    write_mindir,
)
from .image_size import Size, shown
from .int8 import Int8Images, prove_int8, write_int8
from .key import read_key_file
from .proof import AnyGolden, Samples, golden_of, prove, write_goldens
from .readme import README, write_readme
from .settings import SETTINGS, write_settings
from .trained import Trained

AIR = "model.air"
DEFAULT = Choices()
Ends = dict[str, Any]  # "batch_size" and "image_size" that a graph takes, None for any


def write_bundle(
    trained: Trained,
    target: str | Path,
    samples: Samples,
    choices: Choices = DEFAULT,
    *,
    further: Sequence[Samples] = (),
    origin: str | None = None,
    int8: Int8Images | None = None,
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
        int8: images to calibrate and prove an INT8 graph on; None for other precisions.
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
    if (choices.precision == "int8") != (int8 is not None):
        raise ValueError(f"images for INT8 with precision {choices.precision}, or none with int8")
    network = trained.network.set_train(False)
    # Compiled for one run it would take longer, and a Mask R-CNN several times the memory.
    with in_mode(ms.PYNATIVE_MODE):
        goldens = [golden_of(trained, each) for each in (samples, *further)]
    # Fused for the CPU, the transpositions of a layout that is not its own would mix float16 up.
    fusing = unfused() if choices.layout == "NCHW" else contextlib.nullcontext()
    work = tempfile.TemporaryDirectory(prefix="int8_")
    with replaced_folder(target) as staging, layout(choices.layout), fusing, work as scratch:
        network = to_deploy(network) if choices.deploy else deepcopy(network)
        leave_out_ascend_operators(network)
        if choices.flash_attention:
            choose_attention(network, flash=True)
        graphs = {}
        if choices.beside == "ONNX":
            written = Path(scratch if int8 else staging) / ONNX
            graphs[ONNX] = _write_onnx(network, trained, goldens, choices, written)
            if int8:
                edges = [golden.size[0] for golden in goldens]
                write_int8(written, staging / ONNX, int8, trained.transform, edges, choices.takes)
        graphs |= _write_mindirs(network, trained, goldens, choices, staging)
        answers = write_goldens(goldens, staging)
        description = _describe(trained, choices, goldens[0], graphs, answers, staging)
        _write_description(staging, description)
        description["verification"] = [
            proof | {"samples": origin} for proof in prove(staging, trained, goldens, choices)
        ]
        if int8:
            description["verification"] += prove_int8(staging, Path(scratch) / ONNX, int8)
        _write_description(staging, description)
        write_settings(staging, description)
        write_readme(staging, description)
    return description


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
    network: nn.Cell, trained: Trained, goldens: list[AnyGolden], choices: Choices, path: Path
) -> Ends:
    """Write one ONNX graph, of any batch or image size where there are several."""
    from .onnx.write import write_onnx  # other formats do without the package onnx

    batch_size = _only(choices.batch_sizes)
    image_size = goldens[0].size if len(goldens) == 1 else None
    write_onnx(
        network,
        path,
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


def _write_description(folder: Path, description: dict[str, Any]) -> None:
    text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
    (folder / DESCRIPTION).write_text(text, encoding="utf-8")
