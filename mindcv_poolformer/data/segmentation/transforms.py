"""Scenes as Semantic FPN was trained and tested on ADE20K: the official pipelines (MMSegmentation).

Every draw is made first, and then applied to picture and label alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...config import AugmentationConfig
from ..fitting import DIVISOR, fitted_size, resize_image
from ..preprocess import normalize_padded
from .fitting import IMG_SCALE, EvalTransform
from .photometric import Photometric
from .scenes import IGNORED

CROPS_TRIED = 10


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


def official_test() -> EvalTransform:
    """Give the preparation of the official test."""
    mean, std = AugmentationConfig.mean, AugmentationConfig.std
    return EvalTransform(IMG_SCALE, DIVISOR, mean, std)
