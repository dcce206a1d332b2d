"""Small files of COCO's layout with pictures of their own, for tests to read and to spoil."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CATEGORIES = [{"id": 3, "name": "car"}, {"id": 1, "name": "person"}, {"id": 90, "name": "brush"}]


def annotation(number: int, picture: int, category: int, *box: float, **more: Any) -> dict:
    """An object of a rectangle, whose outline is a polygon."""
    x, y, width, height = box
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    return {
        "id": number,
        "image_id": picture,
        "category_id": category,
        "bbox": list(box),
        "area": width * height,
        "iscrowd": 0,
        "segmentation": [corners],
    } | more


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def write_pictures(folder: Path, images: list[dict]) -> None:
    """Noise of each picture's size."""
    folder.mkdir(parents=True, exist_ok=True)
    for image in images:
        rng = np.random.default_rng(image["id"])
        pixels = rng.integers(0, 256, (image["height"], image["width"], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / image["file_name"])


def picture(number: int, width: int, height: int) -> dict:
    return {"id": number, "file_name": f"{number:03d}.png", "width": width, "height": height}
