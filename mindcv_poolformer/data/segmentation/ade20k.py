"""ADE20K's 150 classes, as the scene parsing benchmark has them: their names and colours."""

from __future__ import annotations

import functools
from importlib.resources import files

import numpy as np


@functools.cache
def _rows() -> tuple[tuple[str, bytes], ...]:
    lines = (files(__package__) / "ade20k.tsv").read_text("utf-8").splitlines()
    rows = (line.split("\t") for line in lines if not line.startswith("#"))
    return tuple((name, bytes.fromhex(colour)) for name, colour in rows)


def names() -> tuple[str, ...]:
    """Give the 150 names, such as "wall", in the order of the labels."""
    return tuple(name for name, _ in _rows())


def colours() -> np.ndarray:
    """Give the colour that pictures of labels show each class in, RGB, (150, 3) uint8."""
    return np.array([list(colour) for _, colour in _rows()], np.uint8)
