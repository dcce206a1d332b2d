"""Sizes of the images that graphs take, as (height, width), and how they are written."""

from __future__ import annotations

import re
from typing import Any

Size = tuple[int, int]


def shown(size: Size) -> str:
    """The edge of a square, or height x width, such as 512x683."""
    height, width = size
    return str(height) if height == width else f"{height}x{width}"


def read_size(text: str) -> Size:
    """The inverse of :func:`shown`.

    Raises:
        ValueError: the text is neither.
    """
    match = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", text)
    if match is None:
        raise ValueError(
            f"found {text!r}, expected an edge such as 512, or height x width, 512x683"
        )
    height, width = match.groups()
    return int(height), int(width or height)


def as_size(told: Any) -> Size:
    """From what JSON or a caller has: an edge, or height and width.

    Raises:
        ValueError: it is neither.
    """
    edges = told if isinstance(told, (list, tuple)) else (told, told)
    if len(edges) != 2 or not all(type(edge) is int and edge > 0 for edge in edges):
        raise ValueError(f"image size {told!r}, expected an edge, or height and width")
    return edges[0], edges[1]


def size_of(transform: Any) -> Size:
    """The size that a transform's ``image_size`` tells, an edge or (height, width)."""
    return as_size(transform.image_size)


def map_size(size: Size) -> Size:
    """The size of a segmenter's logits for images of a size."""
    height, width = size
    return (height + 1) // 4, (width + 1) // 4
