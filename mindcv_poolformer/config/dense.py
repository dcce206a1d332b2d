"""The section of a recipe that segmentation and detection both read."""

from __future__ import annotations

from dataclasses import dataclass

from jsonargparse.typing import PositiveInt


@dataclass(frozen=True)
class DenseConfig:
    """dense: pictures at their own shape and the neck on the backbone; with tasks segmentation and
    detection

    Args:
        img_scale: longest and shortest edge that a picture is resized to fit in, its shape kept;
            null for the task's own, 2048 and 512 for segmentation, 1333 and 800 for detection.
        size_divisor: validation brings both edges to a multiple of it: a segmenter's by resizing,
            a detector's by padding.
        neck_channels: of the maps between backbone and head, and in a detector's head.
    """

    img_scale: tuple[PositiveInt, PositiveInt] | None = None
    size_divisor: PositiveInt = 32
    neck_channels: PositiveInt = 256
