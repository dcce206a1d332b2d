"""How many pixels an image may have, as it comes and as it is resized."""

from __future__ import annotations

from .preprocess import EvalTransform

MOST_PIXELS = 25_000_000


def resized_pixels(width: int, height: int, transform: EvalTransform) -> int:
    """Give the pixels once the short side is resized: a line becomes a ribbon."""
    shortest = int(transform.image_size / transform.crop_pct)
    return shortest * shortest * max(width, height) // min(width, height)
