"""A run folder in a few lines: ``python -m mindcv_poolformer.summary runs/digits``.

Tells what train.py, validate.py, export.py and predict.py have left there, as far as they have.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .export.bundle import DESCRIPTION, MINDIR
from .runtime.arguments import OneLineParser
from .runtime.errors import UserError, run
from .training.curves import read_validations
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
    best = max(validations, key=lambda row: (row["top1"], row["epoch"]))
    yield f"training     best top-1 {best['top1']:.2f} % after epoch {best['epoch']}"
    if validation := _read(folder / VALIDATION):
        for result in (validation.get("compared"), validation):
            if result:
                yield f"top-1 in {result['amp_level']:<4}{result['top1']:.2f} %"
        if "agreement" in validation:
            yield f"agreement    {validation['agreement']:.2f} % of {validation['images']} images"
    if bundle := _read(folder / BUNDLE / DESCRIPTION):
        size = bundle["files"][MINDIR]["size"] / 1e6
        yield f"MINDIR       {folder / BUNDLE / MINDIR}, {size:.1f} MB, {bundle['precision']}"
    for prediction in _read(folder / PREDICTION) or []:
        first = prediction["predictions"][0]
        yield f"prediction   {prediction['image']}: {first['class']} ({first['probability']:.1%})"
    if (folder / CURVES).exists():
        yield f"curves       {folder / CURVES}"


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
