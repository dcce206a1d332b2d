"""README.md of a bundle: the commands for that bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..runtime.counted import counted
from .description import CLASSIFICATION, DETECTION, ONNX, SEGMENTATION
from .image_size import as_size, shown

README = "README.md"

_TEXT = """\
# {model}, {precision}, {form} form

{classes}; written with MindSpore {mindspore} from {checkpoint}.

| | name | type | shape |
|---|---|---|---|
{ends}

{sizes}

`model.json` describes the bundle; its checksums are compared whenever it is loaded. `golden.npz`
holds images and the checkpoint's answer to them.

{host}## Commands

In a checkout of mindcv_poolformer, with `BUNDLE` as the path of this folder:

```shell
{commands}
```
"""

_CLASSIFICATION = """\
python predict.py --bundle "$BUNDLE" --self_test{key}
python predict.py --bundle "$BUNDLE" photo.jpg folder/ --top_k 3{key}
python validate.py --bundle "$BUNDLE" --data_dir DIR{key}          # DIR/val/<class>/*
python -m mindcv_poolformer.serving "$BUNDLE"           # pip install ".[serving]\""""

_SEGMENTATION = """\
python predict.py --bundle "$BUNDLE" --self_test{key}
python predict.py --bundle "$BUNDLE" photo.jpg folder/ --output_dir predictions{key}
python validate.py --bundle "$BUNDLE" --config RECIPE{key}
python -m mindcv_poolformer.serving "$BUNDLE"           # pip install ".[serving]\""""

_DETECTION = """\
python predict.py --bundle "$BUNDLE" --self_test{key}
python predict.py --bundle "$BUNDLE" photo.jpg folder/ --output_dir predictions{key}
python validate.py --bundle "$BUNDLE" --config RECIPE{key}
python -m mindcv_poolformer.serving "$BUNDLE"           # pip install ".[serving]\""""

_OBJECTS = """\
A picture goes to the graph whose shape is nearest to its own: it is resized to fit `img_scale`, or
the graph's size if that is smaller, normalised, and filled up with zeros at the right and at the
bottom; `shapes` has its height and width without that. Boxes are x1, y1, x2, y2 in pixels of what
the graph takes, the first `count` of them; divide them by how many times as wide and as high the
picture has become.

"""

_MASKS = """\
Of the first `count` objects `masks` has the probability of their pixels within their boxes: paste
each into its box, bilinear, with the middles of its cells spread evenly over the box and zeros
beyond, and take the pixels from 0.5 on.

"""

_HOST = """\
The logits are those of every fourth pixel each way. For the classes of all pixels resize them
twice, bilinear with half-pixel centres, to the size of the graph's input and from there to that of
the picture, and take the largest. A picture goes to the graph whose shape is nearest to its own: it
is resized to fit `img_scale`, and then to the graph's size. Colours of the classes are in
`palette`; label files {numbering}.

"""

_RUN = """\
images, expected = golden["{golden}"], golden["{gives}"]
{fixed}(found,) = session.run(None, {{"images": images}})
print(abs(found - expected).max())"""

_FIXED = """\
images = np.resize(images, ({size}, *images.shape[1:]))  # all that it takes at once
expected = np.resize(expected, ({size}, *expected.shape[1:]))
"""

_RUN_DETECTOR = """\
inputs = {"images": golden["images"], "shapes": golden["shapes"]}
boxes, scores, labels, count = session.run(None, inputs)
print(boxes[0, : count[0]], scores[0, : count[0]], labels[0, : count[0]])"""

_KEY = """
The graph is encrypted with AES-GCM. `KEY` is a file with the key, nothing else in it. The server
finds it by `"extra": {{"key_file": "KEY"}}` under `parameters` in `model-settings.json`.
"""

_INT8 = """
Its convolutions are INT8, and `verification` in `model.json` tells what that changes; the MINDIR is
in fp32.
"""

_ONNX = """
## ONNX

`model.onnx` needs neither MindSpore nor this project, only the packages onnxruntime and numpy:

```python
import numpy as np
import onnxruntime

golden = np.load("golden.npz")
session = onnxruntime.InferenceSession("model.onnx")
{run}
```
{int8}
On a CPU the commands above take it, where onnxruntime is installed; `--runtime mindspore` has them
take the MINDIR, and of the server `"runtime": "mindspore"` in `parameters.extra` of
`model-settings.json`. After `pip install .` alone, without MindSpore, all but `validate.py` run.
"""


def write_readme(folder: Path, description: dict[str, Any]) -> None:
    """Write README.md for the content of model.json."""
    pixels = description["input"]["dtype"] == "uint8"
    size = description["graphs"].get(ONNX, {}).get("batch_size")
    facts = description | {
        "classes": counted(len(description["classes"]), "class"),
        "checkpoint": f"`{description['checkpoint']['name']}`",
        "ends": _ends(description),
        "sizes": _sizes(description),
        "key": " --dec_key_file KEY" if description["encryption"] else "",
        "run": _RUN.format(
            golden="pixels" if pixels else "images",
            gives=description["output"]["name"],
            fixed=_FIXED.format(size=size) if size else "",
        ),
        "host": "",
        "int8": _INT8 if description["precision"] == "int8" else "",
    }
    commands = _CLASSIFICATION
    if description["task"] == DETECTION:
        commands, facts["host"], facts["run"] = _DETECTION, _OBJECTS, _RUN_DETECTOR
        if "mask_edge" in description["objects"]:
            facts["host"] += _MASKS
            facts["run"] = _RUN_DETECTOR.replace("count = s", "count, masks = s")
    if description["task"] == SEGMENTATION:
        commands = _SEGMENTATION
        first = int(description["reduce_zero_label"])
        facts["host"] = _HOST.format(numbering=f"begin with {first} for the first class")
    facts["commands"] = commands.format_map(facts)
    text = _TEXT.format_map(facts)
    if description["encryption"]:
        text += _KEY.format()
    if ONNX in description["files"]:
        text += _ONNX.format_map(facts)
    (folder / README).write_text(text, encoding="utf-8")


def _ends(description: dict[str, Any]) -> str:
    """Rows of a table: what the graph takes and gives."""
    pixels = description["input"]["dtype"] == "uint8"
    meaning = "pixels 0 to 255" if pixels else "normalised as `model.json` tells"
    meaning = f", {description['input']['layout']}, {meaning}"
    rows = []
    for kind in ("input", "output"):
        for end in description.get(f"{kind}s", [description[kind]]):
            more = meaning if end["name"] == "images" else ""
            rows.append(
                f"| {kind} | {end['name']} | {end['dtype']}{more} | {_shape(end['shape'])} |"
            )
    return "\n".join(rows)


def _shape(shape: list[int | None]) -> str:
    return " x ".join("N" if size is None else str(size) for size in shape)


def _sizes(description: dict[str, Any]) -> str:
    """What batch and image sizes there are, in a sentence or two.

    Of several the MINDIRs take one each, the ONNX graph all, and any other.
    """
    onnx = "; `model.onnx` itself takes any" if ONNX in description["files"] else ""
    graphs = description["graphs"].values()
    batches = sorted({graph["batch_size"] for graph in graphs if graph["batch_size"]})
    told = [shown(as_size(graph["image_size"])) for graph in graphs if graph["image_size"]]
    images = list(dict.fromkeys(told))
    text = "Any batch size."
    if description["task"] == DETECTION:
        text = "One picture at a time."
        batches = []
    if batches:
        any_batch = onnx if len(batches) > 1 else ""
        text = f"Batch sizes: {', '.join(map(str, batches))}{any_batch}."
    if len(images) > 1 and description["task"] != CLASSIFICATION:
        text += (
            f" Images of {', '.join(images)} px (height x width), each a graph of its own{onnx}."
        )
    elif len(images) > 1:
        others = ", ".join(images[1:])
        text += (
            f" Images of {images[0]} px, or with `--image_size` {others}, each a graph of its own"
            f"{onnx}."
        )
    return text
