"""A run folder in a few lines: ``python -m mindcv_poolformer.summary runs/digits``.

Tells what train.py, validate.py, export.py and predict.py have left there, as far as they have.
"""

from __future__ import annotations

if __name__ == "__main__":
    from .runtime import requires_mindspore  # noqa: F401

# isort: split
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .export.description import DESCRIPTION, MINDIR, precision_in
from .runtime.arguments import OneLineParser
from .runtime.counted import counted
from .runtime.errors import UserError, run
from .training.curves import SCORES, read_validations, score_of
from .training.records import CURVES

VALIDATION = "validation.json"  # validate.py --result_file
PREDICTION = "prediction.json"  # predict.py --json
BUNDLE = "bundle"  # export.py's default


def summarize(folder: Path) -> Iterator[str]:
    """Give the lines.

    Raises:
        UserError: the folder has no records of a run, or a file in it is damaged.
    """
    validations = read_validations(folder)
    if not validations:
        raise UserError(f"{folder}: found no records of a run with validation, expected them")
    key = score_of(validations[0])
    name = SCORES[key]
    best = max(validations, key=lambda row: (row[key], row["epoch"]))
    yield f"training     best {name} {best[key]:.2f} % after epoch {best['epoch']}"
    if validation := _read(folder / VALIDATION):
        for result in (validation.get("compared"), validation):
            if result:
                told = f"{name} in {result.get('amp_level') or result['precision']}"
                yield f"{told:<12} {result[key]:.2f} %"
        if "agreement" in validation:
            pixels = "the pixels of " if key == "mIoU" else ""
            of = f"{pixels}{counted(validation['images'], 'image')}"
            yield f"agreement    {validation['agreement']:.2f} % of {of}"
    if bundle := _read(folder / BUNDLE / DESCRIPTION):
        size = bundle["files"][MINDIR]["size"] / 1e6
        precision = precision_in("mindspore", bundle["precision"])
        yield f"MINDIR       {folder / BUNDLE / MINDIR}, {size:.1f} MB, {precision}"
    for prediction in _read(folder / PREDICTION) or []:
        yield f"prediction   {prediction['image']}: {_told(prediction)}"
    if (folder / CURVES).exists():
        yield f"curves       {folder / CURVES}"


def _told(prediction: dict[str, Any]) -> str:
    """The class of an image, or where its overlay is, or why there is neither."""
    if "error" in prediction:
        return str(prediction["error"])
    if "files" in prediction:
        return str(prediction["files"]["overlay"])
    first = prediction["predictions"][0]
    return f"{first['class']} ({first['probability']:.1%})"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes()) if path.exists() else None
    except ValueError as error:  # not UTF-8, or not JSON
        raise UserError(f"{path}: found no readable JSON ({error})") from None


def main() -> None:
    """The command."""
    parser = OneLineParser(
        prog="python -m mindcv_poolformer.summary", description="A run folder in a few lines."
    )
    parser.add_argument("folder", type=Path, help="--ckpt_save_dir of train.py")
    print(*summarize(parser.parse_args().folder), sep="\n")


if __name__ == "__main__":
    run(main)
