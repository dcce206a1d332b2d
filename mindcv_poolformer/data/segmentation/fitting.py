"""Scenes at the sizes that Semantic FPN sees in the official test, without a training set around.

What a bundle needs: nothing here wants MindSpore to be installed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..fitting import FittedTransform, fitted_size, resize_image
from ..preprocess import normalize

IMG_SCALE = (2048, 512)


@dataclass(frozen=True)
class EvalTransform(FittedTransform):
    """Resize to fit, then each edge to the next multiple of a divisor; normalise (AlignResize)."""

    def resize(self, image: np.ndarray) -> np.ndarray:
        """Resize a picture (H, W, 3) uint8, twice: the second time its shape changes a little.

        Raises:
            UserError: see resize_image.
        """
        height, width = image.shape[:2]
        fitted = resize_image(image, fitted_size(height, width, self.img_scale))
        height, width = (
            self.size_divisor * math.ceil(edge / self.size_divisor) for edge in fitted.shape[:2]
        )
        return resize_image(fitted, (height, width))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Turn a picture (H, W, 3) uint8 RGB into the network's input (3, h, w) float32.

        Raises:
            UserError: see resize_image.
        """
        return normalize(self.resize(image).transpose(2, 0, 1), self.mean, self.std)
