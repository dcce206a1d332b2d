"""Photographs that are always at hand: scikit-learn, a requirement, ships two."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
from PIL import Image

from .preprocess import open_image

PHOTOGRAPHS = ("china.jpg", "flower.jpg")  # 640 x 427 pixels
EDGE = 256
COLUMNS, ROWS = 4, 2


def photographs(channels: int) -> list[Image.Image]:
    """Give the two, converted as :func:`open_image` does."""
    folder = files("sklearn") / "datasets" / "images"
    return [open_image(str(folder / name), channels) for name in PHOTOGRAPHS]


def photograph_crops(channels: int) -> list[Image.Image]:
    """Give 16 squares of 256 pixels, 8 of each photograph, that overlap and cover it.

    Args:
        channels: grey (1), RGB (3) or RGBA (4), converted as :func:`open_image` does.
    """
    crops = []
    for image in photographs(channels):
        tops = np.linspace(0, image.height - EDGE, ROWS, dtype=int)
        lefts = np.linspace(0, image.width - EDGE, COLUMNS, dtype=int)
        for top in tops.tolist():
            crops += [image.crop((left, top, left + EDGE, top + EDGE)) for left in lefts.tolist()]
    return crops
