"""Where objects lie, pixel by pixel: polygons and run lengths, and the masks that they mean."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from ...runtime.counted import counted

NONE, POLYGONS, RUNS, CODE = range(4)
Outline = list[array] | list[int] | str | None  # of these kinds, in another order


@dataclass(frozen=True, eq=False)
class Outlines:
    """The outlines of many objects in a few arrays, as a file of COCO's layout gives them.

    Args:
        kinds: (A,) uint8, of each object one of NONE, POLYGONS, RUNS and CODE.
        first: (A + 1,) int64, the parts that an object's outline begins with and ends before: one
            for each polygon, one for runs.
        starts: (P + 1,) int64, where a part begins in `content`.
        content: (B,) uint8, the bytes of float64 (x, y, x, y, …), of int64 runs, or the text that
            pycocotools codes runs in.
    """

    kinds: np.ndarray
    first: np.ndarray
    starts: np.ndarray
    content: np.ndarray

    @classmethod
    def of(cls, outlines: Iterable[Outline]) -> Outlines:
        """Take polygons as arrays of float64, runs as integers or as text, or None for no outline.

        A polygon has at least six numbers; an empty list of them is no outline either.
        """
        kinds, first, parts = bytearray(), [0], list[bytes]()
        for outline in outlines:
            if not outline:
                kinds.append(NONE)
            elif isinstance(outline, str):
                kinds.append(CODE)
                parts.append(outline.encode())
            elif isinstance(outline[0], array):
                kinds.append(POLYGONS)
                parts += [part.tobytes() for part in outline]
            else:
                kinds.append(RUNS)
                parts.append(np.array(outline, np.int64).tobytes())
            first.append(len(parts))
        starts = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        content = np.frombuffer(b"".join(parts), np.uint8)
        return cls(np.frombuffer(bytes(kinds), np.uint8), np.array(first), starts, content)

    def __len__(self) -> int:
        return len(self.kinds)

    def parts(self, index: int) -> list[np.ndarray]:
        """Give the parts of an object's outline, (n,) float64, int64 or uint8 each."""
        dtype = {POLYGONS: np.float64, RUNS: np.int64}.get(self.kinds[index], np.uint8)
        edges = self.starts[self.first[index] : self.first[index + 1] + 1].tolist()
        return [
            np.frombuffer(self.content[start:end].tobytes(), dtype)
            for start, end in zip(edges, edges[1:], strict=False)
        ]

    def mask(self, index: int, height: int, width: int) -> np.ndarray:
        """Draw an object's mask (height, width) uint8: 1 on it, else 0.

        Raises:
            ValueError: there is no outline, or its runs are not those of a picture of that size.
        """
        return drawn(int(self.kinds[index]), self.parts(index), height, width)


def drawn(kind: int, parts: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """Draw a mask (height, width) uint8 of an outline's kind and :meth:`Outlines.parts`.

    Polygons are filled, and united, by pycocotools: other programs draw other edges.

    Raises:
        ValueError: as :meth:`Outlines.mask`.
    """
    if kind == NONE:
        raise ValueError("found no outline, expected one to draw a mask of")
    if kind == POLYGONS:
        pieces = coco_mask.frPyObjects([part.tolist() for part in parts], height, width)
        return coco_mask.decode(coco_mask.merge(pieces))
    return mask_of_runs(parts[0] if kind == RUNS else runs_of_code(parts[0]), height, width)


def mask_of_runs(runs: np.ndarray, height: int, width: int) -> np.ndarray:
    """Draw a mask (height, width) uint8 of runs (n,) of 0, 1, 0, …, column by column.

    Raises:
        ValueError: the runs are not those of as many pixels.
    """
    if (runs < 0).any() or runs.sum() != height * width:
        total = "a negative run" if (runs < 0).any() else f"runs of {counted(runs.sum(), 'pixel')}"
        raise ValueError(f"found {total}, expected {height * width:,} in all")
    values = (np.arange(len(runs)) % 2).astype(np.uint8)
    return np.ascontiguousarray(np.repeat(values, runs).reshape(width, height).T)


def runs_of_code(code: np.ndarray) -> np.ndarray:
    """Give the runs (n,) int64 of the bytes (m,) uint8 that pycocotools codes them in.

    A byte less 48 holds five bits of a number, the lowest first, and a sixth that tells whether
    more follow; from the fourth on numbers are differences to the one before the last.

    Raises:
        ValueError: the bytes are no such text.
    """
    digits = code.astype(np.int64) - 48
    more = (digits & 32) > 0
    if ((digits < 0) | (digits > 63)).any() or (len(digits) and more[-1]):
        raise ValueError("found text that is no code of runs, expected one of pycocotools")
    ends = np.flatnonzero(~more)
    starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)
    lengths = ends - starts + 1
    if (lengths > 8).any():
        raise ValueError("found a run of more than 40 bits, expected runs within a picture")
    place = np.arange(len(digits)) - np.repeat(starts, lengths)
    values = np.add.reduceat((digits & 31) << (5 * place), starts) if len(digits) else digits
    negative = (digits[ends] & 16) > 0
    runs = values - (negative.astype(np.int64) << (5 * lengths))
    for parity in (1, 2):  # the first number stands for itself
        runs[parity::2] = np.cumsum(runs[parity::2])
    return runs
