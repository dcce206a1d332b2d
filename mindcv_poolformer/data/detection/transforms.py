"""Pictures with objects as the official detectors saw them: MMDetection's pipelines for COCO.

What happens to a picture is drawn first, and then applied to it, its boxes and its masks alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...config import AugmentationConfig
from ..preprocess import check_told, normalize, normalize_padded
from ..segmentation.fitting import fitted_size, resize_image
from ..segmentation.transforms import nearest

IMG_SCALE = (1333, 800)
DIVISOR = 32  # of height and width, which the network's stages halve


def scale_factors(
    height: int | np.ndarray, width: int | np.ndarray, size: tuple[int, int] | np.ndarray
) -> np.ndarray:
    """Give what boxes of a picture are multiplied by when it is resized, (4,) float32.

    Those of x and y differ a little, as each edge is rounded by itself.

    Args:
        height, width: of the picture.
        size: (height, width) that it is resized to.
    """
    return np.array([size[1] / width, size[0] / height] * 2, np.float32)


def padded_size(size: tuple[int, int], divisor: int = DIVISOR) -> tuple[int, int]:
    """Give the (height, width) that a resized picture of one is padded to: the next multiples."""
    return divisor * math.ceil(size[0] / divisor), divisor * math.ceil(size[1] / divisor)


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


def padded(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Fill (n, h, w) with 0 up to (n, *size), at its right and bottom.

    Raises:
        ValueError: it is larger.
    """
    count, height, width = array.shape
    if height > size[0] or width > size[1]:
        raise ValueError(f"{height} x {width} pixels to be padded to {size[0]} x {size[1]}")
    whole = np.zeros((count, *size), array.dtype)
    whole[:, :height, :width] = array
    return whole


_LISTS = ("img_scale", "mean", "std")


@dataclass(frozen=True)
class EvalTransform:
    """Resize to fit, normalise, pad each edge to the next multiple of a divisor.

    Args:
        img_scale: that pictures fit in, see fitted_size.
        size_divisor: of height and width, which the network's stages halve.
        mean, std: of red, green and blue, in units of 0 to 255.
    """

    img_scale: tuple[int, int] = IMG_SCALE
    size_divisor: int = DIVISOR
    mean: tuple[float, ...] = AugmentationConfig.mean
    std: tuple[float, ...] = AugmentationConfig.std

    def to_dict(self) -> dict[str, Any]:
        """A JSON object; `pixel_range` tells the unit of `mean` and `std`."""
        values = {name: list(value) for name, value in asdict(self).items() if name in _LISTS}
        return {**values, "size_divisor": self.size_divisor, "pixel_range": [0, 255]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EvalTransform:
        """The inverse of to_dict.

        Raises:
            UserError: a key is missing or unknown, or the unit is another.
        """
        check_told(values, {*_LISTS, "size_divisor"})
        lists = {name: tuple(values[name]) for name in _LISTS}
        return cls(size_divisor=int(values["size_divisor"]), **lists)

    def __call__(
        self, pixels: np.ndarray, canvas: tuple[int, int] | None = None
    ) -> tuple[np.ndarray, tuple[int, int]]:
        """Turn a picture (H, W, 3) uint8 RGB into the network's input.

        Args:
            pixels: of the picture.
            canvas: (height, width) to pad to; None for the next multiples of size_divisor, the
                official way. Norms see what is padded, so another size gives other numbers.

        Returns:
            (3, height, width) float32, and the (h, w) of it that is the picture.

        Raises:
            UserError: see resize_image.
            ValueError: the resized picture is larger than the canvas.
        """
        size = fitted_size(pixels.shape[0], pixels.shape[1], self.img_scale)
        resized = resize_image(pixels, size).transpose(2, 0, 1)
        image = normalize(resized, self.mean, self.std)
        return padded(image, canvas or padded_size(size, self.size_divisor)), size
