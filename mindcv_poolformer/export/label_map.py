"""The host's part of segmentation: from logits at a quarter of the size to a class for each pixel.

In NumPy alone. It equals ``models.dense.label_map``, which resizes on the device.
"""

from __future__ import annotations

import numpy as np

from .image_size import Size

BLOCK_BYTES = 1 << 23  # of the resized logits that are there at once


def label_map(logits: np.ndarray, input_size: Size, original_size: Size) -> np.ndarray:
    """Give the class of each pixel of a picture.

    The official test resizes the logits twice, to the size that the network saw and from there to
    that of the picture, bilinear and with half-pixel centres; the class is the largest's. Both
    resizes are linear, so here they are a product for the rows and one for the columns, in blocks.

    Args:
        logits: (classes, h, w) float32.
        input_size: height and width of what the network was given.
        original_size: height and width of the picture.

    Returns:
        (height, width) int32; of classes that are equal the first one.
    """
    classes, *size = logits.shape
    high, wide = (
        _resized(np.eye(old), seen, slice(0, seen))
        for old, seen in zip(size, input_size, strict=True)
    )  # (seen, old)
    height, width = original_size
    places = np.ascontiguousarray(logits.transpose(1, 2, 0), np.float32)  # (h, w, classes)
    labels = np.empty(original_size, np.int32)
    columns = min(width, 512)
    rows = max(1, BLOCK_BYTES // (4 * classes * columns))
    for left in range(0, width, columns):
        across, reach = _part(wide, width, slice(left, min(left + columns, width)))
        block = np.matmul(across, places[:, reach])  # (h, columns, classes)
        for top in range(0, height, rows):
            down, reach = _part(high, height, slice(top, min(top + rows, height)))
            resized = down @ block[reach].reshape(reach.stop - reach.start, -1)
            labels[top : top + rows, left : left + columns] = resized.reshape(
                len(down), len(across), classes
            ).argmax(-1)
    return labels


def _resized(matrix: np.ndarray, new: int, rows: slice) -> np.ndarray:
    """Some of the ``new`` rows of a matrix (old, ...) that is resized; float64."""
    old = len(matrix)
    place = np.maximum((np.arange(rows.start, rows.stop) + 0.5) * (old / new) - 0.5, 0)
    lower = np.minimum(place.astype(np.int64), old - 1)
    upper = np.minimum(lower + 1, old - 1)
    part = (place - lower)[:, None]
    return (1 - part) * matrix[lower] + part * matrix[upper]


def _part(first: np.ndarray, new: int, rows: slice) -> tuple[np.ndarray, slice]:
    """Some rows of both resizes without the zeros on both sides, and where these columns are.

    Not all at once: a picture of a single line may have millions of columns.
    """
    both = _resized(first, new, rows).astype(np.float32)
    used = np.flatnonzero(both.any(axis=0))
    reach = slice(int(used[0]), int(used[-1]) + 1)
    return np.ascontiguousarray(both[:, reach]), reach
