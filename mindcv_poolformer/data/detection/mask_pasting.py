"""Masks of boxes into images, as MMDetection 2.19 pastes them; in NumPy, on the host."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


class PastedMasks:
    """Objects' pixels, each (H, W) bool, pasted when it is asked for: all may be gigabytes.

    Args:
        probabilities: (n, h, w), each object's in its box.
        boxes: (n, 4), (x1, y1, x2, y2) in the image's pixels.
        size: height and width of the image.
    """

    def __init__(self, probabilities: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> None:
        self._probabilities, self._boxes, self._size = probabilities, boxes, size

    def __len__(self) -> int:
        return len(self._boxes)

    def __getitem__(self, index: int) -> np.ndarray:
        one = [index]
        (mask,) = paste_masks(self._probabilities[one], self._boxes[one], self._size)
        return mask

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))

    def resized(self, size: tuple[int, int]) -> PastedMasks:
        """Those of an image of another size, height and width."""
        factors = np.array(size[::-1] * 2) / np.array(self._size[::-1] * 2)
        return PastedMasks(self._probabilities, self._boxes * factors, size)

    def all(self) -> np.ndarray:
        """(n, H, W) bool."""
        return paste_masks(self._probabilities, self._boxes, self._size)


def paste_masks(
    probabilities: np.ndarray, boxes: np.ndarray, size: tuple[int, int], threshold: float = 0.5
) -> np.ndarray:
    """Give the pixels of each object, bool (n, height, width).

    A pixel's probability is bilinear between those of the mask, of which there are zeros beyond the
    border: it fades out over half a mask's cell outside the box.

    Args:
        probabilities: (n, h, w), each object's in its box.
        boxes: (n, 4), (x1, y1, x2, y2) in the image's pixels.
        size: height and width of the image.
        threshold: the probability from which on a pixel is the object's.
    """
    height, width = size
    pasted = np.zeros((len(boxes), height, width), bool)
    for out, mask, (x1, y1, x2, y2) in zip(pasted, probabilities, boxes, strict=True):
        # A pixel around the box is all that can reach the threshold.
        top, bottom = _reach(y1, y2, height)
        left, right = _reach(x1, x2, width)
        rows = _weights(y1, y2, top, bottom, mask.shape[0])
        columns = _weights(x1, x2, left, right, mask.shape[1])
        out[top:bottom, left:right] = rows @ mask @ columns.T >= threshold
    return pasted


def _reach(begin: float, end: float, length: int) -> tuple[int, int]:
    first = max(int(np.floor(begin)) - 1, 0)
    return first, max(min(int(np.ceil(end)) + 1, length), first)


def _weights(begin: float, end: float, first: int, last: int, cells: int) -> np.ndarray:
    """Give how much each cell of a mask counts in each of the pixels, (last - first, cells)."""
    middles = np.arange(first, last, dtype=np.float32) + np.float32(0.5)
    with np.errstate(divide="ignore", invalid="ignore"):
        part = (middles - begin) / (end - begin) * 2 - 1
    # In a box without an area, the middle of the mask.
    part = np.where(np.isfinite(part), part, 0)
    at = ((part + 1) * cells - 1) / 2
    return np.maximum(1 - np.abs(at[:, None] - np.arange(cells, dtype=np.float32)), 0)
