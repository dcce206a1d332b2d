"""model.json: what a bundle says of itself, read and checked before any graph is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.detection.fitting import EvalTransform as PictureTransform
from ..data.detection.objects import Objects
from ..data.preprocess import EvalTransform
from ..data.segmentation.fitting import EvalTransform as SceneTransform
from ..data.segmentation.labelling import Labelling
from ..runtime.counted import counted
from ..runtime.errors import UserError
from ..runtime.files import sha256
from .ends import End, detector_ends, image_ends
from .image_size import Size, as_size, read_size, shown, size_of

FORMAT = 2  # of model.json; counts up when an older reader would misread it
DESCRIPTION = "model.json"
MINDIR = "model.mindir"
ONNX = "model.onnx"
ENDINGS = {"mindspore": ".mindir", "onnx": ".onnx"}  # of what a runtime runs
CIPHER = "AES-GCM"
AnyTransform = EvalTransform | SceneTransform | PictureTransform
CLASSIFICATION, SEGMENTATION, DETECTION = "classification", "segmentation", "detection"
_KINDS = {CLASSIFICATION: "a classifier", SEGMENTATION: "a segmenter", DETECTION: "a detector"}


@dataclass(frozen=True)
class Graph:
    """A file with a graph, and what the graph takes.

    Args:
        file: name in the bundle's folder.
        batch_size: the only one it takes, None for any.
        image_size: height and width of its images, None for any size of the bundle.
    """

    file: str
    batch_size: int | None
    image_size: Size | None


@dataclass(frozen=True, eq=False)
class Description:
    """The content of a model.json.

    Args:
        folder: the bundle's.
        model: name of the model.
        classes: name of each output.
        transform: from an image to the network's input, a classifier's at the bundle's first image
            size; of a segmenter that of the test, whatever the size.
        precision: fp32, fp16, or int8 for an ONNX graph in INT8 beside MINDIRs in fp32.
        takes: "float32", normalised images (N, C, H, W), or "uint8", pixels (N, H, W, C).
        gives: "logits" or "probabilities"; "objects" of a detector.
        cipher: of the MINDIRs, None for none.
        written_with: version of MindSpore.
        graphs: MINDIRs and ONNX graphs.
        golden: the file with a golden pair for each image size.
        files: size, if told, and SHA-256 of each file.
        labelling: of a segmenter, else None.
        objects: of a detector, else None.
    """

    folder: Path
    model: str
    classes: tuple[str, ...]
    transform: AnyTransform
    precision: str
    takes: str
    gives: str
    cipher: str | None
    written_with: str
    graphs: tuple[Graph, ...]
    golden: Mapping[Size, str]
    files: Mapping[str, tuple[int | None, str]]
    labelling: Labelling | None = None
    objects: Objects | None = None

    @property
    def task(self) -> str:
        """Classification, segmentation or detection."""
        return task_of(self.labelling, self.objects)

    def check_task(self, task: str) -> None:
        """Refuse a bundle of another task.

        Raises:
            UserError: it is.
        """
        if self.task != task:
            raise UserError(
                f"bundle {self.folder}: found one of {self.model}, {_KINDS[self.task]}, expected "
                f"{_KINDS[task]}"
            )

    @property
    def image_sizes(self) -> tuple[Size, ...]:
        """Sizes of the images that the MINDIRs take, the bundle's first size first."""
        sizes = [graph.image_size for graph in self.graphs if graph.image_size is not None]
        first = [size_of(self.transform)] if isinstance(self.transform, EvalTransform) else []
        return tuple(dict.fromkeys([*first, *sizes]))

    def ends(self, graph: Graph) -> tuple[list[End], list[End]]:
        """What a graph takes and gives."""
        channels, size = len(self.transform.mean), graph.image_size
        if self.objects is not None:
            return detector_ends(channels, self.objects.detections, size, self.objects.mask_edge)
        return image_ends(
            channels,
            len(self.classes),
            batch_size=graph.batch_size,
            image_size=size,
            takes=self.takes,
            gives=self.gives,
            segments=self.labelling is not None,
        )

    def graphs_for(self, runtime: str, image_size: Size) -> tuple[Graph, ...]:
        """The graphs that a runtime, "mindspore" or "onnx", runs for an image size.

        There is one for each batch size.

        Raises:
            UserError: the bundle has no such image size.
        """
        if image_size not in self.image_sizes:
            raise UserError(
                f"image_size: found {shown(image_size)}, expected one of the bundle's: "
                f"{', '.join(map(shown, self.image_sizes))}"
            )
        return tuple(
            graph
            for graph in self.graphs
            if graph.file.endswith(ENDINGS[runtime]) and graph.image_size in (None, image_size)
        )

    def checked(self, name: str) -> Path:
        """The path of a file whose content is what it was when the bundle was written.

        Raises:
            UserError: it is missing, cut off, damaged, or replaced.
        """
        path = self.folder / name
        if not path.is_file():
            raise UserError(f"{path}: found no such file, expected it beside {DESCRIPTION}")
        size, checksum = self.files[name]
        if size is not None and path.stat().st_size != size:
            raise UserError(
                f"{path}: found {path.stat().st_size:,} bytes, expected {size:,}: "
                "cut off or replaced"
            )
        found = sha256(path)
        if found != checksum:
            raise UserError(
                f"{path}: found SHA-256 {found}, expected {checksum}: damaged or replaced"
            )
        return path


def task_of(labelling: Labelling | None, objects: Objects | None) -> str:
    """Tell the task of what has the one, the other, or neither."""
    if objects is not None:
        return DETECTION
    return CLASSIFICATION if labelling is None else SEGMENTATION


def precision_in(runtime: str, precision: str) -> str:
    """Tell the precision of what "mindspore" or "onnx" runs, of that in model.json."""
    return "fp32" if (runtime, precision) == ("mindspore", "int8") else precision


def read_description(folder: str | Path) -> Description:
    """Read a bundle's model.json.

    Raises:
        UserError: the folder is no bundle, its model.json is damaged or contradicts itself, or a
            later version wrote it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"bundle {folder}: found no such folder, expected one that export.py wrote")
    path = folder / DESCRIPTION
    values = _read_json(path)
    try:
        description = _parse(folder, values)
        outputs = None if description.objects is not None else values["output"]["shape"][1]
    except KeyError as error:
        raise UserError(f"{path}: found no key {error}, expected it") from None
    except (AttributeError, IndexError, TypeError, ValueError, UserError) as error:
        raise UserError(f"{path}: found a malformed value ({error})") from None
    if outputs not in (None, len(description.classes)):
        raise UserError(
            f"{path}: found {counted(len(description.classes), 'class')} for "
            f"{counted(outputs, 'output')}"
        )
    _check(path, description)
    return description


def check_version(path: Path, written_with: str, here: str) -> None:
    """Refuse a MINDIR of a newer MindSpore, which may hold what this one misreads.

    Raises:
        UserError: its major and minor version are above those of ``here``.
    """
    if not re.match(r"\d+\.\d+", written_with):
        raise UserError(f"{path}: found MindSpore version {written_with!r}, expected such as 2.10")
    written, ours = (
        tuple(map(int, re.findall(r"\d+", version)[:2])) for version in (written_with, here)
    )
    if written > ours:
        raise UserError(
            f"{path}: found it written with MindSpore {written_with}, expected at most {here}, "
            "which runs here"
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"{path}: found {error.strerror!r}, expected the description of a bundle"
        ) from None
    except (ValueError, RecursionError) as error:  # not UTF-8, or not JSON
        raise UserError(f"{path}: found no readable JSON ({error}), expected a bundle's") from None
    version = values.get("format") if isinstance(values, dict) else None
    if type(version) is not int or version < 1:
        raise UserError(f"{path}: found format {version!r}, expected 1 to {FORMAT}")
    if version > FORMAT:
        raise UserError(
            f"{path}: found format {version}, expected at most {FORMAT}: "
            "a later version of mindcv_poolformer wrote it"
        )
    return values


def _parse(folder: Path, values: dict[str, Any]) -> Description:
    transform, labelling, objects = _read_task(values)
    if values["format"] == 1:  # one MINDIR, float32 to logits, no golden pair
        edge = values["preprocessing"]["image_size"]
        one = {"batch_size": values["input"]["shape"][0], "image_size": edge}
        values = values | {"graphs": {MINDIR: one}, "golden": {}, "encryption": None}
        values["input"] = values["input"] | {"dtype": "float32"}
        values["output"] = values["output"] | {"name": "logits"}
    files = values["files"]
    graphs = tuple(
        Graph(name, told["batch_size"], _size_or_none(told["image_size"]))
        for name, told in values["graphs"].items()
    )
    named = [*(graph.file for graph in graphs), *values["golden"].values()]
    return Description(
        folder=folder,
        model=values["model"],
        classes=tuple(values["classes"]),
        transform=transform,
        precision=values["precision"],
        takes=values["input"]["dtype"],
        gives="objects" if objects else values["output"]["name"],
        cipher=values["encryption"],
        written_with=str(values["mindspore"]),
        graphs=graphs,
        golden={read_size(size): name for size, name in values["golden"].items()},
        files={name: (files[name].get("size"), files[name]["sha256"]) for name in named},
        labelling=labelling,
        objects=objects,
    )


def _read_task(
    values: dict[str, Any],
) -> tuple[AnyTransform, Labelling | None, Objects | None]:
    task, preprocessing = values.get("task", CLASSIFICATION), values["preprocessing"]
    if task == CLASSIFICATION:
        return EvalTransform.from_dict(preprocessing), None, None
    if task not in (SEGMENTATION, DETECTION):
        raise ValueError(f"task {task!r}, expected {CLASSIFICATION}, {SEGMENTATION} or {DETECTION}")
    palette = tuple(map(tuple, values["palette"]))
    fits = len(palette) == len(values["classes"])
    if not fits or not all(len(c) == 3 and all(v in range(256) for v in c) for c in palette):
        raise ValueError("palette: expected red, green and blue, 0 to 255, for each class")
    if task == DETECTION:
        transform = PictureTransform.from_dict(preprocessing)
        return transform, None, Objects.from_dict(palette, values["objects"])
    labelling = Labelling(palette, bool(values["reduce_zero_label"]))
    return SceneTransform.from_dict(preprocessing), labelling, None


def _size_or_none(told: Any) -> Size | None:
    return None if told is None else as_size(told)


def _check(path: Path, description: Description) -> None:
    """What the parts of a description must have to do with each other."""
    classes = description.classes
    if not all(isinstance(name, str) for name in (description.model, *classes)):
        raise UserError(f"{path}: found a model or class that is no text, expected names")
    for key, found, allowed in (
        ("input dtype", description.takes, ("float32", "uint8")),
        ("output name", description.gives, ("logits", "probabilities", "objects")),
        ("precision", description.precision, ("fp32", "fp16", "int8")),
        ("encryption", description.cipher, (None, CIPHER)),
    ):
        if found not in allowed:
            raise UserError(f"{path}: found {key} {found!r}, expected one of {allowed}")
    for name in description.files:
        if Path(name).name != name:
            raise UserError(f"{path}: found the file {name!r}, expected one in the bundle's folder")
    for graph in description.graphs:
        number = graph.batch_size
        if number is not None and (type(number) is not int or number < 1):
            raise UserError(f"{path}: found batch size {number!r}, expected a count or null")
