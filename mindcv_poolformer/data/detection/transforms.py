"""Pictures with objects as the official detectors saw them: MMDetection's pipelines for COCO.

What happens to a picture is drawn first, and then applied to it, its boxes and its masks alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...config import AugmentationConfig
from ..fitting import DIVISOR, fitted_size, resize_image
from ..preprocess import normalize_padded
from ..segmentation.transforms import nearest
from .fitting import IMG_SCALE, EvalTransform, scale_factors


@dataclass(frozen=True)
class Draw:
    """What happens to one picture.

    Args:
        source: its (height, width).
        size: (height, width) that it is resized to.
        flip: mirror it left-right.
    """

    source: tuple[int, int]
    size: tuple[int, int]
    flip: bool


@dataclass(frozen=True)
class TrainTransform:
    """Resize to fit, mirror at random, normalise, pad.

    Args:
        img_scale: that pictures fit in, see fitted_size.
        flip: probability.
        mean, std: of red, green and blue, in units of 0 to 255.
    """

    img_scale: tuple[int, int] = IMG_SCALE
    flip: float = 0.5
    mean: tuple[float, ...] = AugmentationConfig.mean
    std: tuple[float, ...] = AugmentationConfig.std

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Draw:
        """Draw what happens to a picture of a size."""
        size = fitted_size(height, width, self.img_scale)
        return Draw((height, width), size, bool(rng.random() < self.flip))

    def image(self, pixels: np.ndarray, draw: Draw) -> np.ndarray:
        """Give the picture (H, W, 3) uint8 RGB as (3, h, w) uint8.

        Raises:
            UserError: see resize_image.
        """
        resized = resize_image(pixels, draw.size)
        return np.ascontiguousarray((resized[:, ::-1] if draw.flip else resized).transpose(2, 0, 1))

    def boxes(self, boxes: np.ndarray, draw: Draw) -> np.ndarray:
        """Give boxes (n, 4) float32 within the resized picture, of which some may be empty now."""
        height, width = draw.size
        moved = boxes * scale_factors(*draw.source, draw.size)
        moved = np.clip(moved, 0, np.array([width, height] * 2, np.float32))
        if draw.flip:
            moved = np.stack(
                [width - moved[:, 2], moved[:, 1], width - moved[:, 0], moved[:, 3]], 1
            )
        return moved.astype(np.float32)

    def masks(self, masks: np.ndarray, draw: Draw) -> np.ndarray:
        """Give masks (n, H, W) as (n, h, w)."""
        rows, columns = (nearest(*edges) for edges in zip(draw.source, draw.size, strict=True))
        if draw.flip:
            columns = columns[::-1]
        return masks.take(columns, axis=2).take(rows, axis=1)  # faster than both at once

    def finish(self, images: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Normalise padded pictures (N, 3, H, W) uint8 of the true (h, w) in sizes (N, 2).

        Gives float32; what is padded is 0, the mean colour.
        """
        return normalize_padded(images, sizes, self.mean, self.std)


def official_test(
    img_scale: tuple[int, int] = IMG_SCALE, size_divisor: int = DIVISOR
) -> EvalTransform:
    """Give what happened to each picture in the official test."""
    return EvalTransform(img_scale, size_divisor, AugmentationConfig.mean, AugmentationConfig.std)
