"""Show where a network looks: Grad-CAM over images, for one checkpoint or several side by side.

python explain.py data/digits/val/7 photo.png --top_k 2 --sheet
"""

from __future__ import annotations

import mindcv_poolformer  # noqa: F401  sets the CPU up, before MindSpore is imported
import mindcv_poolformer.runtime.requires_mindspore  # noqa: F401

# isort: split

import argparse
import json
import math
import re
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from PIL import Image

from mindcv_poolformer.data.folder import find_images
from mindcv_poolformer.data.preprocess import open_image, silence_pillow
from mindcv_poolformer.explaining.explanation import Explainer, Explanation
from mindcv_poolformer.explaining.overlay import SheetRow, as_picture, draw_sheet
from mindcv_poolformer.runtime.arguments import OneLineParser, at_least_one
from mindcv_poolformer.runtime.device import set_up_device
from mindcv_poolformer.runtime.errors import UserError, run
from mindcv_poolformer.runtime.files import replaced_folder
from mindcv_poolformer.runtime.launch import World

INDEX = "explained.json"  # tells a folder of ours
SHEET = "sheet.png"
MOST_ROWS = 50  # of a sheet
GRAPH, PYNATIVE = 0, 1
FEW = 5  # images that PyNative explains before a graph is compiled; both grow with the network


def parse_arguments() -> argparse.Namespace:
    parser = OneLineParser(
        description="Show where a network looks: Grad-CAM over images.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("images", nargs="+", help="image files, or folders searched for images")
    parser.add_argument(
        "--model",
        nargs="+",
        default=["runs/digits/best.ckpt"],
        help="weights files or Hugging Face folders of anybody's, or names of published variants",
    )
    parser.add_argument(
        "--stage",
        type=int,
        choices=range(4),
        help="whose maps to show; if not given, the last one with 4 x 4 places or more",
    )
    parser.add_argument(
        "--classes", nargs="+", help="names of classes to explain, or their numbers"
    )
    parser.add_argument(
        "--top_k",
        type=at_least_one,
        help="explain the most probable classes, 1 if neither this nor --classes is given",
    )
    parser.add_argument(
        "--image_size", type=at_least_one, help="edge of what the network sees, the model's own"
    )
    parser.add_argument("--alpha", type=opacity, default=0.6, help="opacity of a map's peak")
    parser.add_argument("--output", default="runs/explained", help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an older such folder")
    parser.add_argument(
        "--sheet", action="store_true", help=f"put all side by side too, in {SHEET}"
    )
    parser.add_argument("--device_target", choices=["CPU", "Ascend"], default="CPU", help="device")
    arguments = parser.parse_args()
    if arguments.classes and arguments.top_k:
        parser.error("found --classes and --top_k, expected one of them")
    return arguments


def opacity(text: str) -> float:
    """Read a number from 0 to 1, for ``type=`` of an argument."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number from 0 to 1")
    return value


def main() -> None:
    arguments = parse_arguments()
    output = Path(arguments.output)
    paths = find_images(arguments.images)
    check(arguments, paths, output)
    mode = PYNATIVE if len(paths) <= FEW else GRAPH
    set_up_device(arguments.device_target, mode, None, World())
    silence_pillow()
    explainers = [
        Explainer(model, stage=arguments.stage, image_size=arguments.image_size)
        for model in arguments.model
    ]
    chosen = [labels_of(explainer, arguments.classes) for explainer in explainers]
    index: list[dict[str, Any]] = []
    rows: list[SheetRow] = []
    with replaced_folder(output.resolve()) as folder:
        for number, path in enumerate(paths, 1):
            print(path)
            columns = []
            for place, (explainer, labels) in enumerate(zip(explainers, chosen, strict=True), 1):
                shown = explain(explainer, path, labels, arguments)
                for one, picture in shown:
                    name = file_name(number, path, place if len(explainers) > 1 else 0, one)
                    picture.save(folder / name)
                    index.append(describe(name, path, explainer, one))
                    print(f"  {title(one)}: {name}")
                columns.append(shown)
            if arguments.sheet:
                rows += sheet_rows(path, columns)
        if arguments.sheet:
            draw_sheet(arguments.model, rows, folder / SHEET)
        text = json.dumps(index, indent=2, ensure_ascii=False) + "\n"
        (folder / INDEX).write_text(text, "utf-8", "backslashreplace")
    for explainer in explainers:
        edge = f"{explainer.places} x {explainer.places}"
        print(f"{explainer.name}: maps of stage {explainer.stage}, {edge} places")
    beside = f", {INDEX}, {SHEET}" if arguments.sheet else f", {INDEX}"
    print(f"{output}: {len(index)} overlays{beside}")


def check(arguments: argparse.Namespace, paths: Sequence[Path], output: Path) -> None:
    """Refuse before the work what would be refused after it."""
    for path in paths:
        if not path.exists():
            raise UserError(f"image {path} does not exist")
    rows = len(paths) * (len(arguments.classes or ()) or arguments.top_k or 1)
    if arguments.sheet and rows > MOST_ROWS:
        raise UserError(f"--sheet: found {rows} rows, expected at most {MOST_ROWS}")
    if not output.exists():
        return
    if not arguments.overwrite:
        raise UserError(f"--output: {output} exists, expected a new folder, or --overwrite")
    if not is_ours(output):
        raise UserError(
            f"--output: found {output} to be or to hold something else than explanations, "
            f"expected a folder of {INDEX} and its pictures to overwrite"
        )


def is_ours(output: Path) -> bool:
    """Whether it is a folder that holds nothing, or what this script writes."""
    if not output.is_dir():
        return False
    names = {entry.name for entry in output.iterdir()}
    return not names or (INDEX in names and all(name.endswith(".png") for name in names - {INDEX}))


def labels_of(explainer: Explainer, classes: Sequence[str] | None) -> list[int] | None:
    """The numbers of the classes asked for, None for the most probable ones."""
    if not classes:
        return None
    return list(dict.fromkeys(explainer.label_of(text) for text in classes))


def explain(
    explainer: Explainer, path: Path, labels: Sequence[int] | None, arguments: argparse.Namespace
) -> list[tuple[Explanation, Image.Image]]:
    """The explanations of an image by one model, each with its overlay."""
    image = explainer.processor.open(path)
    found = explainer.explain(image, labels, arguments.top_k or 1)
    picture = as_picture(image)
    return [(one, explainer.overlay(picture, one, arguments.alpha)) for one in found]


def title(one: Explanation) -> str:
    """Class and probability, for people."""
    nothing = "" if one.cam.any() else ", no place speaks for it"
    return f"{one.name} ({one.probability:.1%}{nothing})"


def file_name(number: int, path: Path, model: int, one: Explanation) -> str:
    """A name that no other overlay has: numbers of image, model and class, words for people.

    ``model`` is 0 where there is one alone.
    """
    parts = [f"{number:03}", in_name(path.stem)]
    if model:
        parts.append(f"model{model}")
    parts.append(str(one.label))
    if one.name != str(one.label):
        parts.append(in_name(one.name))
    return "_".join(parts) + ".png"


def in_name(text: str) -> str:
    """Text as a part of a file name."""
    return re.sub(r"[^\w-]+", "-", text)[:30].strip("-")


def describe(name: str, path: Path, explainer: Explainer, one: Explanation) -> dict[str, Any]:
    """What the index says of an overlay."""
    return {
        "file": name,
        "image": str(path),
        "model": explainer.name,
        "stage": explainer.stage,
        "index": one.label,
        "class": one.name,
        "probability": one.probability,
    }


def sheet_rows(
    path: Path, columns: Sequence[list[tuple[Explanation, Image.Image]]]
) -> list[SheetRow]:
    """A row for each class that is explained; where a model has fewer, its place stays empty."""
    picture = as_picture(open_image(path, upright=True))
    titled = [[(title(one), drawn) for one, drawn in column] for column in columns]
    return [SheetRow(path.name, picture, cells) for cells in zip_longest(*titled)]


if __name__ == "__main__":
    run(main)
