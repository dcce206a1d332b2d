"""Scenes for a graph that takes one size: fitted as for the test, and then stretched."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..fitting import fitted_size, resize_image
from .fitting import IMG_SCALE, EvalTransform


@dataclass(frozen=True)
class StretchTransform(EvalTransform):
    """Resize to fit, then to one size, whatever the shape was; normalise.

    As :class:`EvalTransform` but for the second resize, which there goes to the next multiples of
    the divisor. Nothing is padded: norms over the whole map would see it everywhere.

    Args:
        image_size: height and width of what the network sees.
    """

    image_size: tuple[int, int] = (min(IMG_SCALE), min(IMG_SCALE))

    @classmethod
    def of(cls, transform: EvalTransform, image_size: tuple[int, int]) -> StretchTransform:
        """The preparation of a test, for graphs of a size."""
        return cls(**vars(transform), image_size=image_size)

    def resize(self, image: np.ndarray) -> np.ndarray:
        """Resize a picture (H, W, 3) uint8, twice.

        Raises:
            UserError: see resize_image.
        """
        height, width = image.shape[:2]
        fitted = resize_image(image, fitted_size(height, width, self.img_scale))
        return resize_image(fitted, self.image_size)

    def __call__(self, image: Image.Image | np.ndarray) -> np.ndarray:
        """Turn an RGB picture, or its (H, W, 3) uint8, into (3, *image_size) float32.

        Raises:
            UserError: see resize_image.
        """
        return super().__call__(np.asarray(image))
