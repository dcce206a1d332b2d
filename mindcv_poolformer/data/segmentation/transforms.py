"""Scenes as Semantic FPN was trained and tested on ADE20K: the official pipelines (MMSegmentation).

Every draw is made first, and then applied to picture and label alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from mindspore.dataset import vision

from ...config import AugmentationConfig
from ...runtime.errors import UserError
from ..preprocess import check_told, normalize, normalize_padded
from .photometric import Photometric
from .scenes import IGNORED

IMG_SCALE = (2048, 512)
MOST_ENLARGED = 1000  # times, that MindSpore resizes
CROPS_TRIED = 10


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
        UserError: an edge would grow more than MindSpore resizes.
    """
    height, width = image.shape[:2]
    if (height, width) == size:
        return image
    if max(size[0] / height, size[1] / width) > MOST_ENLARGED:
        raise UserError(
            f"found {width} x {height} pixels to be enlarged to {size[1]} x {size[0]}, "
            f"expected at most {MOST_ENLARGED:,} times"
        )
    return vision.Resize(size, vision.Inter.BILINEAR)(np.ascontiguousarray(image))


def nearest(source: int, target: int) -> np.ndarray:
    """Give the index, of `source` ones, of which each of `target` ones is a copy in OpenCV."""
    step = 1 / (target / source)  # rounded twice, as there: source / target is not always equal
    return np.minimum((np.arange(target) * step).astype(np.int64), source - 1)


@dataclass(frozen=True)
class Draw:
    """What happens to one scene.

    Args:
        size: (height, width) that it is resized to.
        top, left: of the crop in the resized scene.
        flip: mirror it left-right.
        photometric: what happens to the picture's colours.
    """

    size: tuple[int, int]
    top: int
    left: int
    flip: bool
    photometric: Photometric


_AS_IS = Photometric()


@dataclass(frozen=True)
class TrainTransform:
    """Resize at random, crop, flip, distort the colours.

    Args:
        crop_size: (height, width) of the crop; a scene smaller than that is kept whole.
        img_scale: that the scene fits in at ratio 1, see fitted_size.
        ratio_range: lowest and highest ratio.
        cat_max_ratio: share of the labelled pixels of a crop that one class must stay below.
        flip: probability.
        photometric: change the colours.
        mean, std: of red, green and blue, in units of 0 to 255.
    """

    crop_size: tuple[int, int] = (512, 512)
    img_scale: tuple[int, int] = IMG_SCALE
    ratio_range: tuple[float, float] = (0.5, 2.0)
    cat_max_ratio: float = 0.75
    flip: float = 0.5
    photometric: bool = True
    mean: tuple[float, ...] = AugmentationConfig.mean
    std: tuple[float, ...] = AugmentationConfig.std

    def draw(self, label: np.ndarray, rng: np.random.Generator) -> Draw:
        """Draw what happens to a scene with the label (H, W), on which the crop depends."""
        ratio = rng.uniform(*self.ratio_range)
        long, short = (int(edge * ratio) for edge in self.img_scale)
        size = fitted_size(label.shape[0], label.shape[1], (long, short))
        top, left = self._corner(size, rng)
        for _ in range(CROPS_TRIED if self.cat_max_ratio < 1 else 0):
            if varied(self._cut(label, size, top, left), self.cat_max_ratio):
                break
            top, left = self._corner(size, rng)
        flip = bool(rng.random() < self.flip)
        return Draw(size, top, left, flip, Photometric.draw(rng) if self.photometric else _AS_IS)

    def _corner(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
        spare = [max(edge - crop, 0) for edge, crop in zip(size, self.crop_size, strict=True)]
        return int(rng.integers(spare[0] + 1)), int(rng.integers(spare[1] + 1))

    def _cut(self, label: np.ndarray, size: tuple[int, int], top: int, left: int) -> np.ndarray:
        rows, columns = (nearest(*edges) for edges in zip(label.shape, size, strict=True))
        height, width = self.crop_size
        return label[rows[top : top + height, None], columns[left : left + width]]

    def label(self, label: np.ndarray, draw: Draw) -> np.ndarray:
        """Give the part (h, w) of a label (H, W), h and w at most those of crop_size."""
        cut = self._cut(label, draw.size, draw.top, draw.left)
        return cut[:, ::-1] if draw.flip else cut

    def image(self, image: np.ndarray, draw: Draw) -> np.ndarray:
        """Give the part (3, h, w) uint8 of a picture (H, W, 3) uint8 RGB.

        Raises:
            UserError: see resize_image.
        """
        height, width = self.crop_size
        resized = resize_image(image, draw.size)
        cut = resized[draw.top : draw.top + height, draw.left : draw.left + width]
        if draw.flip:
            cut = cut[:, ::-1]
        return draw.photometric.apply(np.ascontiguousarray(cut.transpose(2, 0, 1)))

    def padded(self, image: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fill a crop up to crop_size, at its right and bottom: with 0, and with IGNORED."""
        height, width = label.shape
        whole = np.zeros((len(image), *self.crop_size), np.uint8)
        classes = np.full(self.crop_size, IGNORED, np.uint8)
        whole[:, :height, :width] = image
        classes[:height, :width] = label
        return whole, classes

    def finish(self, images: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Normalise padded crops (N, 3, H, W) uint8 of the true (h, w) in sizes (N, 2).

        Gives float32; what is padded is 0, the mean colour.
        """
        return normalize_padded(images, sizes, self.mean, self.std)


def varied(label: np.ndarray, most: float) -> bool:
    """Tell whether each of several classes covers less than a share of the labelled pixels."""
    counts = np.bincount(label.ravel(), minlength=256)[:IGNORED]
    return bool((counts > 0).sum() > 1 and counts.max() / counts.sum() < most)


_LISTS = ("img_scale", "mean", "std")


@dataclass(frozen=True)
class EvalTransform:
    """Resize to fit, then each edge up to the next multiple of a divisor; normalise (AlignResize).

    Args:
        img_scale: that the scene fits in, see fitted_size.
        size_divisor: of height and width, which the network's stages halve.
        mean, std: of red, green and blue, in units of 0 to 255.
    """

    img_scale: tuple[int, int] = IMG_SCALE
    size_divisor: int = 32
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
