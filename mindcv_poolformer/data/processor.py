"""From whatever holds an image to a network's input, as Hugging Face's image processors do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeGuard, cast

import numpy as np
from PIL import Image

from ..runtime.environment import is_installed
from ..runtime.errors import UserError
from ..runtime.image_modes import CHANNELS, MODES
from .preprocess import RESAMPLING, EvalTransform, convert, open_image, turn_upright

if TYPE_CHECKING:  # else imported where it is wanted: a bundle does without MindSpore
    from mindspore import Tensor

AnyImage = Image.Image | np.ndarray | str | Path


class ImageProcessor:
    """Images to (N, C, H, W): resize, centre crop, normalise, as PoolFormerImageProcessor.

    Args:
        size: edge of the square that the network sees, in pixels.
        crop_pct: edge of that square as a part of the resized shortest edge, in (0, 1].
        interpolation: of the resize, bicubic or bilinear.
        mean, std: per channel, in units of 0 to 1. Their length is the number of channels: 1 grey,
            3 RGB, 4 RGBA. By default ImageNet's.

    Raises:
        ValueError: an argument has no meaning, such as a mean in units of 0 to 255.
    """

    def __init__(
        self,
        size: int = 224,
        crop_pct: float = 0.9,
        interpolation: Literal["bicubic", "bilinear"] = "bicubic",
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        if size < 1:
            raise ValueError(f"size: found {size}, expected 1 or more")
        if interpolation not in RESAMPLING:
            raise ValueError(
                f"interpolation: found {interpolation!r}, expected {' or '.join(RESAMPLING)}"
            )
        if not all(0 <= value <= 1 for value in mean) or not all(0 < value <= 1 for value in std):
            raise ValueError(f"mean, std: found {mean}, {std}, expected them in units of 0 to 1")
        mean, std = (tuple(255 * value for value in values) for values in (mean, std))
        self._use(EvalTransform(size, crop_pct, interpolation, mean, std))

    def _use(self, transform: EvalTransform) -> None:
        self.transform = transform
        self.channels = len(transform.mean)
        if self.channels not in MODES:
            raise ValueError(f"mean: found {self.channels} channels, expected {CHANNELS}")

    @classmethod
    def for_model(cls, name: str) -> ImageProcessor:
        """The published preprocessing of a model that is registered with MindCV.

        Raises:
            ValueError: MindCV knows no such model, or nothing about its images.
            UserError: MindSpore is not installed, which MindCV wants.
        """
        if not is_installed("mindspore"):
            raise UserError(
                f"model {name}: found no package mindspore, which MindCV's preprocessing wants, "
                "expected it: pip install -r requirements.txt"
            )
        from mindcv.models.registry import get_pretrained_cfg

        cfg = get_pretrained_cfg(name)
        if "crop_pct" not in cfg:
            raise ValueError(f"model: found {name!r}, expected one with a configuration in MindCV")
        edge = cfg["input_size"][-1]
        return cls(edge, cfg["crop_pct"], cfg["interpolation"], cfg["mean"], cfg["std"])

    @classmethod
    def from_transform(cls, transform: EvalTransform) -> ImageProcessor:
        """The preprocessing of a checkpoint or a bundle, to the last bit."""
        processor = cls.__new__(cls)
        processor._use(transform)
        return processor

    def __call__(
        self, images: AnyImage | Sequence[AnyImage], return_tensors: Literal["ms", "np"] = "ms"
    ) -> Tensor | np.ndarray:
        """Prepare one image or several.

        Args:
            images: Pillow images, arrays or file paths, see :meth:`open`; one of them, a list or
                tuple of them, or an array of four dimensions.
            return_tensors: "ms" for MindSpore, "np" for NumPy.

        Returns:
            (N, C, size, size) float32, N = 1 for one image.

        Raises:
            ValueError: there is no image; ``return_tensors`` is neither; or as :meth:`open`.
            TypeError: as :meth:`open`.
            UserError: as :meth:`open`; or "ms" is wanted where MindSpore is not installed.
        """
        if return_tensors not in ("ms", "np"):
            raise ValueError(f"return_tensors: found {return_tensors!r}, expected 'ms' or 'np'")
        if return_tensors == "ms" and not is_installed("mindspore"):
            raise UserError(
                "return_tensors: found 'ms' and no package mindspore, expected "
                'return_tensors="np", or the package: pip install -r requirements.txt'
            )
        batch = np.stack([self.transform(image) for image in self.open_all(images)])
        if return_tensors == "np":
            return batch
        from mindspore import Tensor

        return Tensor(batch)

    def open_all(self, images: AnyImage | Sequence[AnyImage]) -> list[Image.Image]:
        """Each of one image or several, as :meth:`open` gives it; errors as ``__call__``."""
        several = images if are_several(images) else [cast(AnyImage, images)]
        if len(several) == 0:
            raise ValueError("images: found none, expected at least one")
        return [self.open(image) for image in several]

    def open(self, image: AnyImage) -> Image.Image:
        """Give an image upright and in the processor's channels, at its own size.

        Args:
            image: a path or a Pillow image, turned as its EXIF orientation tells; or an array
                (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels, of uint8 or of floats from 0
                to 1. How colours and depths are converted is told at ``preprocess.convert``.

        Raises:
            UserError: the file is missing, damaged or no image.
            ValueError: the array's shape or range fits none of these, or the image has 32-bit
                pixels.
            TypeError: it is none of these, or the array holds another type.
        """
        if isinstance(image, (str, Path)):
            return open_image(image, self.channels, upright=True)
        if isinstance(image, np.ndarray):
            image = _from_array(image)
        if not isinstance(image, Image.Image):
            raise TypeError(
                f"image: found {type(image).__name__}, expected a path, Pillow image or array"
            )
        return convert(turn_upright(image), self.channels)

    def __repr__(self) -> str:
        return f"ImageProcessor({self.transform})"


def are_several(images: AnyImage | Sequence[AnyImage]) -> TypeGuard[Sequence[AnyImage]]:
    """Tell a list, a tuple or an array of images from one image."""
    return isinstance(images, (list, tuple)) or (
        isinstance(images, np.ndarray) and images.ndim == 4
    )


def _from_array(pixels: np.ndarray) -> Image.Image:
    """Give an array of uint8, or of floats from 0 to 1, as an image of 8 bits."""
    if pixels.dtype.kind == "f":
        if pixels.size and not (pixels.min() >= 0 and pixels.max() <= 1):  # NaN is refused too
            raise ValueError(
                f"image: found floats from {pixels.min()} to {pixels.max()}, expected 0 to 1"
            )
        pixels = np.rint(255 * pixels.astype(np.float32)).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise TypeError(f"image: found an array of {pixels.dtype}, expected uint8 or floats")
    shape = pixels.shape
    if pixels.ndim == 3:
        first, last = shape[0] in MODES, shape[2] in MODES
        if first == last:
            said = "either way" if first else "neither way"
            raise ValueError(
                f"image: found an array of shape {shape}, {said} 1, 3 or 4 channels, "
                "expected (H, W, C) or (C, H, W)"
            )
        pixels = pixels.transpose(1, 2, 0) if first else pixels
        pixels = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    if pixels.ndim not in (2, 3) or 0 in shape:
        raise ValueError(
            f"image: found an array of shape {shape}, expected (H, W), (H, W, C) or (C, H, W)"
        )
    return Image.fromarray(np.ascontiguousarray(pixels))
