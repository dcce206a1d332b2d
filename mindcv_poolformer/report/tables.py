"""The tables of a report, as CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .findings import Findings


def write_tables(folder: Path, findings: Findings) -> dict[str, str]:
    """Write the tables into a folder; give what each file is."""
    told = {
        "confusion.csv": "how many images of each class are taken for which; zeros are left out",
        "per_class.csv": "accuracy and precision of each class",
        "mistakes.csv": "images taken for something else, the most confident first",
        "calibration.csv": "confidence against accuracy, in bins",
    }
    write_csv(
        folder / "confusion.csv",
        ("index", "class", "predicted_index", "prediction", "images"),
        _confusion(findings),
    )
    write_csv(
        folder / "per_class.csv",
        ("index", "class", "images", "correct", "accuracy", "predicted", "precision"),
        _per_class(findings),
    )
    write_csv(
        folder / "mistakes.csv",
        ("path", "class", "prediction", "probability"),
        ((*_image(findings, number), *_said(findings, number)) for number in findings.mistakes),
    )
    write_csv(
        folder / "calibration.csv",
        ("lower", "upper", "images", "confidence", "accuracy"),
        ((_share(b[0]), _share(b[1]), b[2], *map(_share, b[3:])) for b in findings.calibration),
    )
    if findings.compared:
        told["disagreements.csv"] = "images for which the two levels predict different classes"
        said = ("prediction", "probability", "compared_prediction", "compared_probability")
        write_csv(
            folder / "disagreements.csv",
            ("path", "class", *said),
            (
                (*_image(findings, number), *_said(findings, number), *_other(findings, number))
                for number in findings.disagreements
            ),
        )
    return told


def _confusion(findings: Findings) -> Iterable[tuple[int, str, int, str, int]]:
    names = findings.classes  # two of ImageNet's are "crane", so indices beside
    for label, prediction, images in zip(*findings.confusion, strict=True):
        yield label, names[label], prediction, names[prediction], images


def _per_class(findings: Findings) -> Iterable[tuple[Any, ...]]:
    rows = zip(findings.classes, *findings.per_class(), strict=True)
    for index, (name, images, correct, predicted) in enumerate(rows):
        accuracy = correct / images if images else math.nan
        precision = correct / predicted if predicted else math.nan
        yield index, name, images, correct, _share(accuracy), predicted, _share(precision)


def _image(findings: Findings, number: int) -> tuple[str, str]:
    images = findings.images
    return images.paths[number], findings.classes[images.labels[number]]


def _said(findings: Findings, number: int) -> tuple[str, str]:
    result = findings.result
    return findings.classes[result.predictions[number]], _share(result.confidences[number])


def _other(findings: Findings, number: int) -> tuple[str, str]:
    compared = findings.compared
    assert compared is not None
    return findings.classes[compared.predictions[number]], _share(compared.confidences[number])


def _share(value: float) -> str:
    """A number from 0 to 1; nothing where there is none."""
    return "" if math.isnan(value) else f"{value:.6f}"


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table; a path in it may be bytes that are no text."""
    # Paths and class folders may be bytes that are no text; they are written as they are.
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)


def percent(value: float) -> str:
    """A number in percent; nothing where there is none."""
    return "" if math.isnan(value) else f"{value:.4f}"
