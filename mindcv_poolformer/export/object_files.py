"""What a detector's bundle says of image files, as files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ..data.detection.objects import Detection
from .detector import DetectorBundle
from .picture_files import write_pictures

KINDS = {"overlay": "_overlay"}


def write_object_files(
    bundle: DetectorBundle,
    paths: Sequence[Path],
    folder: Path,
    threshold: float,
    most: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Find the objects on images one by one, as :func:`write_pictures`.

    ``<name>_overlay.png`` is the image with the objects whose scores exceed the threshold, ``most``
    of them if it is given.

    Yields:
        beside the files "objects", see :func:`told_objects`.
    """

    def look(picture: Image.Image) -> tuple[Sequence[Image.Image], dict[str, Any]]:
        found = bundle.objects_on(picture, threshold, most)
        objects = told_objects(found, bundle.objects.category_ids)
        return [found.overlay(picture)], {"objects": objects}

    return write_pictures(paths, folder, KINDS, look)


def told_objects(found: Detection, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """What is said of objects: "index", "class", "score" and "box", the surest first.

    A box is x1, y1, x2, y2 in pixels. Where COCO's numbers of the classes are known, there is
    "category_id" too; of a network that gives masks "segmentation", see
    :attr:`Detection.segmentations`.
    """
    rows = []
    outlines = found.segmentations
    each = zip(found.boxes, found.scores, found.labels.tolist(), strict=True)
    for number, (box, score, label) in enumerate(each):
        row: dict[str, Any] = {"index": label, "class": found.classes[label]}
        if category_ids:
            row["category_id"] = category_ids[label]
        row |= {"score": float(score), "box": [round(x, 2) for x in box.tolist()]}
        if outlines is not None:
            row["segmentation"] = outlines[number]
        rows.append(row)
    return rows
