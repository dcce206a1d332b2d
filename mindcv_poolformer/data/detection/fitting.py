"""Pictures at the sizes that detectors see in the official test, without a training set around.

What a bundle needs: nothing here wants MindSpore to be installed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..fitting import DIVISOR, FittedTransform, fitted_size, resize_image
from ..preprocess import normalize

IMG_SCALE = (1333, 800)


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


@dataclass(frozen=True)
class EvalTransform(FittedTransform):
    """Resize to fit, normalise, pad each edge to the next multiple of a divisor."""

    def fitted(self, height: int, width: int) -> tuple[int, int]:
        """Give the (height, width) that a picture of one is resized to."""
        return fitted_size(height, width, self.img_scale)

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
        size = self.fitted(pixels.shape[0], pixels.shape[1])
        resized = resize_image(pixels, size).transpose(2, 0, 1)
        image = normalize(resized, self.mean, self.std)
        return padded(image, canvas or padded_size(size, self.size_divisor)), size


@dataclass(frozen=True)
class CanvasTransform(EvalTransform):
    """As :class:`EvalTransform`, for a graph that takes one size: padded to that.

    A picture that is larger when it fits ``img_scale`` is made to fit ``image_size``.

    Args:
        image_size: height and width of what the network sees.
    """

    image_size: tuple[int, int] = (min(IMG_SCALE), max(IMG_SCALE))

    @classmethod
    def of(cls, transform: EvalTransform, image_size: tuple[int, int]) -> CanvasTransform:
        """The preparation of a test, for graphs of a size."""
        return cls(**vars(transform), image_size=image_size)

    def fitted(self, height: int, width: int) -> tuple[int, int]:
        """Give the (height, width) that a picture of one is resized to, at most ``image_size``."""
        size = super().fitted(height, width)
        if size[0] <= self.image_size[0] and size[1] <= self.image_size[1]:
            return size
        factor = min(self.image_size[0] / height, self.image_size[1] / width)
        return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))

    def __call__(
        self, pixels: np.ndarray, canvas: tuple[int, int] | None = None
    ) -> tuple[np.ndarray, tuple[int, int]]:
        """As that of :class:`EvalTransform`; the canvas is ``image_size``."""
        return super().__call__(pixels, canvas or self.image_size)
