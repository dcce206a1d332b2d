"""OpenCV's bilinear resize of 8-bit pictures in NumPy, byte by byte, without OpenCV.

A bundle wants it where MindSpore, whose resize gives the same bytes, is not installed.
"""

from __future__ import annotations

import numpy as np

# OpenCV's fixed point: weights have 11 bits, and between the two directions 4 bits are dropped.
_ONE = np.float32(1 << 11)


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (H, W, C) uint8 to (height, width) bilinearly, without antialiasing (INTER_LINEAR).

    Source: the arithmetic of ``resize`` in OpenCV 4, which has weights in fixed point, and takes
    the mean of four pixels where both edges halve.
    """
    height, width = image.shape[:2]
    if (height, width) == (2 * size[0], 2 * size[1]):
        fours = image.reshape(size[0], 2, size[1], 2, -1).sum((1, 3), dtype=np.uint16)
        return ((fours + 2) >> 2).astype(np.uint8)
    columns, right = _places(width, size[1])
    rows, below = _places(height, size[0])

    # Each row of the picture that is wanted, once, and its pixels side by side.
    wanted, pairs = np.unique(np.stack([rows, rows + 1]).clip(0, height - 1), return_inverse=True)
    upper, lower = pairs.reshape(2, -1)
    source = image.take(wanted, axis=0)
    across = _between(source, columns, right)
    across >>= 4
    mixed = across.take(upper, axis=0)
    mixed *= _weights(1 - below)[:, None, None]
    mixed >>= 16
    other = across.take(lower, axis=0)
    other *= _weights(below)[:, None, None]
    other >>= 16
    mixed += other
    mixed += 2
    mixed >>= 2
    return mixed.astype(np.uint8)


def _places(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel of the target, the one before its centre, and how far beyond that it is."""
    step = 1 / (target / source)  # rounded twice, as there
    centres = ((np.arange(target) + 0.5) * step - 0.5).astype(np.float32)
    before = np.floor(centres)
    return before.astype(np.intp), centres - before


def _between(source: np.ndarray, columns: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(H, width, C) int32: two neighbours of each row, of an edge twice it, by their weights."""
    last = source.shape[1] - 1
    pixels = source.take(columns.clip(0, last), axis=1).astype(np.int32)
    pixels *= _weights(1 - right)[:, None]
    others = source.take((columns + 1).clip(0, last), axis=1).astype(np.int32)
    others *= _weights(right)[:, None]
    pixels += others
    return pixels


def _weights(parts: np.ndarray) -> np.ndarray:
    return np.rint(parts * _ONE).astype(np.int32)
