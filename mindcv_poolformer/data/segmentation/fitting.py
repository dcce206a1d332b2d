"""Pictures at the sizes that Semantic FPN sees in the official test, without a training set around.

What a bundle needs: nothing here wants MindSpore to be installed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...runtime.arrival import has_arrived
from ...runtime.errors import UserError
from ..preprocess import check_told, normalize
from .bilinear import resize

IMG_SCALE = (2048, 512)
SIZE_DIVISOR = 32
MOST_ENLARGED = 1000  # times, that MindSpore resizes
LONGEST_EDGE = (2**31 - 1) // MOST_ENLARGED - 1  # pixels, that MindSpore resizes


def fitted_size(height: int, width: int, scale: tuple[int, int]) -> tuple[int, int]:
    """Give the (height, width) of the largest picture of the same shape within a scale.

    Args:
        height, width: of the picture.
        scale: the longer edge is at most its larger number, the shorter at most its smaller.
    """
    factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (H, W, 3) uint8 to (height, width) bilinearly, without antialiasing, as OpenCV does.

    Raises:
        UserError: an edge is longer, or would grow more, than MindSpore resizes.
    """
    height, width = image.shape[:2]
    if (height, width) == size:
        return image
    if max(height, width) > LONGEST_EDGE:
        raise UserError(
            f"found {width} x {height} pixels, expected edges of at most {LONGEST_EDGE:,}"
        )
    if max(size[0] / height, size[1] / width) > MOST_ENLARGED:
        raise UserError(
            f"found {width} x {height} pixels to be enlarged to {size[1]} x {size[0]}, "
            f"expected at most {MOST_ENLARGED:,} times"
        )
    if not has_arrived("mindspore"):  # another thread may be importing it
        return resize(image, size)
    from mindspore.dataset import vision  # the same bytes, in a tenth of the time

    return vision.Resize(size, vision.Inter.BILINEAR)(np.ascontiguousarray(image))


_LISTS = ("img_scale", "mean", "std")


@dataclass(frozen=True)
class EvalTransform:
    """Resize to fit, then each edge up to the next multiple of a divisor; normalise (AlignResize).

    Args:
        img_scale: that the scene fits in, see fitted_size.
        size_divisor: of height and width, which the network's stages halve.
        mean, std: of red, green and blue, in units of 0 to 255.
    """

    img_scale: tuple[int, int]
    size_divisor: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

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
