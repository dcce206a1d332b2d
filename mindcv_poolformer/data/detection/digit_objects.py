"""The digit scenes of segmentation with a box and a mask for each note, in COCO's layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from ..digits import digits_by_split, written_once
from ..segmentation.digit_scenes import EDGE, SCENES, Note, digit_scene
from .annotation_check import ANNOTATIONS
from .coco import split_paths


def write_digit_objects(root: str | Path) -> None:
    """Write 2,100 scenes in COCO's layout, splits train and val, the pictures of the digit scenes.

    Each is 64 pixels wide and high, see :func:`write_digit_scenes`; each note on it is an object
    of the class of its digit, with its exact box and, as a polygon, its exact mask. The folder
    appears as a whole or not at all, and always with the same content.

    Raises:
        UserError: ``root`` holds something else, or scikit-learn is not installed.
    """
    written_once(Path(root), "digit objects", _is_complete, _write)


def _is_complete(root: Path) -> bool:
    for split, count in SCENES.items():
        annotations, images = split_paths(root, split)
        if not annotations.is_file() or sum(1 for _ in images.glob("*.png")) != count:
            return False
    return True


def _write(root: Path) -> None:
    (root / ANNOTATIONS).mkdir()
    for split, digits in digits_by_split().items():
        annotations, images = split_paths(root, split)
        images.mkdir()
        content: dict[str, list[dict[str, Any]]] = {
            "images": [],
            "annotations": [],
            # Numbers from 1 on, as in COCO.
            "categories": [{"id": digit + 1, "name": str(digit)} for digit in range(10)],
        }
        for number in range(SCENES[split]):
            picture, notes = digit_scene(digits, split, number)
            name = f"{number:04d}.png"
            Image.fromarray(picture).save(images / name)
            content["images"].append(
                {"id": number, "file_name": name, "width": EDGE, "height": EDGE}
            )
            for note in notes:
                row = _object(note)
                row |= {"id": len(content["annotations"]) + 1, "image_id": number}
                content["annotations"].append(row)
        annotations.write_text(json.dumps(content))


def _object(note: Note) -> dict[str, Any]:
    right, bottom = note.left + note.size, note.top + note.size
    return {
        "category_id": note.digit + 1,
        "bbox": [note.left, note.top, note.size, note.size],
        "area": note.size**2,
        "iscrowd": 0,
        "segmentation": [[note.left, note.top, right, note.top, right, bottom, note.left, bottom]],
    }
