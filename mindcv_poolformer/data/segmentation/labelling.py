"""Label maps as files and as colours over their pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Labelling:
    """How the label maps of a data set are written and shown.

    Args:
        palette: the colour of each class, red, green and blue, 0 to 255.
        reduce_zero_label: a file's 0 means unlabelled, and k the class k - 1, as in ADE20K.
    """

    palette: tuple[Colour, ...]
    reduce_zero_label: bool = False

    def file_image(self, labels: np.ndarray) -> Image.Image:
        """Give class indices (H, W) as a grey 8-bit image in the data set's own numbering.

        Raises:
            ValueError: a class has a number beyond 255 in it.
        """
        numbers = labels + int(self.reduce_zero_label)
        if numbers.size and numbers.max() > 255:
            raise ValueError(f"labels: found {numbers.max()} in a file, expected at most 255")
        return Image.fromarray(numbers.astype(np.uint8))

    def coloured(self, labels: np.ndarray) -> np.ndarray:
        """Give the colours of class indices (H, W): (H, W, 3) uint8."""
        return np.array(self.palette, np.uint8)[labels]

    def overlay(
        self, picture: Image.Image, labels: np.ndarray, opacity: float = 0.5
    ) -> Image.Image:
        """Lay the colours of class indices (H, W) over their picture, RGB of the same size."""
        colours = Image.fromarray(self.coloured(labels))
        return Image.blend(picture.convert("RGB"), colours, opacity)


def shares_of(labels: np.ndarray) -> list[tuple[int, float]]:
    """Give the class indices that are in (H, W) with their shares of it, the largest first."""
    indices, counts = np.unique(labels, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [(int(indices[i]), float(counts[i] / labels.size)) for i in order]
