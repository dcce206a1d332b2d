"""Pictures at the sizes that networks of dense prediction see, without a training set around.

What a bundle needs: nothing here wants MindSpore to be installed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime.arrival import has_arrived
from ..runtime.errors import UserError
from .bilinear import resize
from .preprocess import check_told

if TYPE_CHECKING:
    from typing_extensions import Self  # of typing from Python 3.11 on

DIVISOR = 32  # of height and width, which the networks' stages halve
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


def nearest_shape(height: int, width: int, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Give the size whose ratio of height to width is nearest to a picture's; the first of equals.

    Near is what has to be stretched by the smallest factor, one way or the other.
    """
    shape = math.log(height / width)
    return min(sizes, key=lambda size: abs(math.log(size[0] / size[1]) - shape))


_LISTS = ("img_scale", "mean", "std")


@dataclass(frozen=True)
class FittedTransform:
    """What the preparations of pictures for a test are told by: these are made to fit a scale.

    Args:
        img_scale: that pictures fit in, see fitted_size.
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
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of to_dict.

        Raises:
            UserError: a key is missing or unknown, or the unit is another.
        """
        check_told(values, {*_LISTS, "size_divisor"})
        lists = {name: tuple(values[name]) for name in _LISTS}
        return cls(size_divisor=int(values["size_divisor"]), **lists)
