"""COCO's 80 categories: their names, and their numbers in its files, between which are gaps."""

from __future__ import annotations

import functools
from importlib.resources import files


@functools.cache
def _rows() -> tuple[tuple[int, str], ...]:
    lines = (files(__package__) / "coco_categories.tsv").read_text("utf-8").splitlines()
    rows = (line.split("\t") for line in lines if not line.startswith("#"))
    return tuple((int(number), name) for number, name in rows)


def names() -> tuple[str, ...]:
    """Give the 80 names, such as "person", in the order of the files."""
    return tuple(name for _, name in _rows())


def numbers() -> tuple[int, ...]:
    """Give the number of each in an annotation's ``category_id``, 1 to 90."""
    return tuple(number for number, _ in _rows())
