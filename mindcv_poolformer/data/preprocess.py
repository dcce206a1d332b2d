"""Images as validation, export and prediction see them: read, resize, centre crop, normalise."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps

from ..runtime.errors import UnreadableError, UserError
from ..runtime.image_modes import MODES

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
DAMAGED = (OSError, SyntaxError, ValueError, struct.error)  # what Pillow answers damaged files with


def open_image(path: str | Path, channels: int = 3, *, upright: bool = False) -> Image.Image:
    """Read an image file as grey (1 channel), RGB (3) or RGBA (4); see :func:`convert`.

    Args:
        path: of the file.
        channels: of the result.
        upright: turn a photo as its EXIF orientation tells, as Hugging Face's ``load_image`` does.
            Training, validation and prediction leave it as it is stored, as torchvision's
            ImageFolder does; published accuracies count on that.

    Raises:
        UnreadableError: the file is missing, not an image, damaged, or of pixels with no known
            range.
    """
    try:
        with Image.open(path) as image:
            opened = turn_upright(image) if upright else image
            opened.load()
            return opened if opened.mode == MODES[channels] else convert(opened, channels)
    except FileNotFoundError:
        raise UnreadableError.of("image", path, " does not exist") from None
    except Image.UnidentifiedImageError:
        if Path(path).stat().st_size == 0:
            raise UnreadableError.of("image", path, " is an empty file") from None
        reason = " is not in an image format that Pillow reads"
        raise UnreadableError.of("image", path, reason) from None
    except (*DAMAGED, Image.DecompressionBombError) as error:
        reason = f" cannot be read: {' '.join(str(error).split())}"
        raise UnreadableError.of("image", path, reason) from error


def silence_pillow() -> None:
    """Keep Pillow's warnings off the screen: of images that it reads all the same.

    One for each image over 89 megapixels, or with odd metadata, is a flood in a data set.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")


def convert(image: Image.Image, channels: int) -> Image.Image:
    """Give an image as grey (1 channel), RGB (3) or RGBA (4), 8 bits each, by Pillow's own rules.

    RGB drops transparency, and CMYK is taken without a colour profile. Pillow clips 16-bit grey to
    white, so here its upper 8 bits are kept, as Pillow keeps those of 16-bit RGB.

    Raises:
        ValueError: the pixels are 32-bit integers or floats, of which no range is agreed.
    """
    if image.mode in ("I", "F"):
        raise ValueError(f"found 32-bit pixels (mode {image.mode}), expected 8 or 16 bits")
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert(MODES[channels])


def turn_upright(image: Image.Image) -> Image.Image:
    """Give an image turned as its EXIF orientation tells.

    Raises:
        ValueError: the EXIF data is damaged.
    """
    try:
        return ImageOps.exif_transpose(image)
    # Pillow reads damaged EXIF data into these, and fails only as it writes them back.
    except (struct.error, TypeError) as error:
        raise ValueError(f"found damaged EXIF data ({error})") from error


def normalize(
    pixels: np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Give (pixels - mean) / std per channel as float32.

    Args:
        pixels: (..., C, H, W) uint8 or float32, 0 to 255.
        mean, std: C values each, in units of 0 to 255.
        out: float32 array of the same shape that takes the result, by default a new one; it may
            be pixels itself.
    """
    if pixels.shape[-3] != len(mean):
        raise ValueError(f"pixels of shape {pixels.shape} with a mean of {len(mean)} channels")
    offsets, scales = (np.array(values, np.float32)[:, None, None] for values in (mean, std))
    if out is None:
        out = pixels.astype(np.float32)
    elif out is not pixels:
        out[...] = pixels
    out -= offsets
    out /= scales
    return out


def normalize_padded(
    images: np.ndarray, sizes: np.ndarray, mean: Sequence[float], std: Sequence[float]
) -> np.ndarray:
    """Normalise images of which a part alone is picture: the rest becomes 0, the mean colour.

    Args:
        images: (N, C, H, W) uint8.
        sizes: (N, 2) integers, height and width of each picture in the upper left of its image.
        mean, std: C values each, in units of 0 to 255.
    """
    normalized = normalize(images, mean, std)
    for image, (height, width) in zip(normalized, sizes.tolist(), strict=True):
        image[:, height:] = 0
        image[:, :, width:] = 0
    return normalized


def channels_first(image: Image.Image) -> np.ndarray:
    """The image's pixels as a contiguous, read-only (C, H, W) uint8 array."""
    planes = [image.tobytes("raw", band) for band in image.getbands()]  # faster than a transpose
    return np.frombuffer(b"".join(planes), np.uint8).reshape(-1, image.height, image.width)


@dataclass(frozen=True)
class EvalTransform:
    """Resize the shortest edge to image_size / crop_pct, cut the centre, normalise.

    Equals Hugging Face's PoolFormerImageProcessor: Pillow's antialiased resize on uint8.

    Args:
        image_size: edge of the square that is cut out, in pixels.
        crop_pct: edge of that square as a part of the resized shortest edge, in (0, 1].
        interpolation: of the resize.
        mean, std: per channel, in units of 0 to 255; their length is the number of channels.
    """

    image_size: int
    crop_pct: float
    interpolation: Literal["bicubic", "bilinear"]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if not 0 < self.crop_pct <= 1:
            raise ValueError(f"crop_pct is {self.crop_pct}, expected 0 < crop_pct <= 1")
        if len(self.mean) != len(self.std):
            raise ValueError(f"{len(self.mean)} means for {len(self.std)} standard deviations")

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Turn an image of len(mean) channels into (C, image_size, image_size) float32."""
        shortest = int(self.image_size / self.crop_pct)
        width, height = (int(shortest * edge / min(image.size)) for edge in image.size)
        resized = image.resize((width, height), RESAMPLING[self.interpolation])
        left = (width - self.image_size) // 2
        top = (height - self.image_size) // 2
        crop = resized.crop((left, top, left + self.image_size, top + self.image_size))
        return normalize(channels_first(crop), self.mean, self.std)

    def to_dict(self) -> dict[str, Any]:
        """A JSON object; `pixel_range` tells the unit of `mean` and `std`."""
        return {
            "image_size": self.image_size,
            "crop_pct": self.crop_pct,
            "interpolation": self.interpolation,
            "mean": list(self.mean),
            "std": list(self.std),
            "pixel_range": [0, 255],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EvalTransform:
        """The inverse of to_dict.

        Raises:
            UserError: a key is missing or unknown, or a value has no meaning here.
        """
        check_told(values, {"image_size", "crop_pct", "interpolation", "mean", "std"})
        if values["interpolation"] not in RESAMPLING:
            raise UserError(
                f"preprocessing interpolation is {values['interpolation']!r}, "
                f"expected one of {sorted(RESAMPLING)}"
            )
        try:
            return cls(
                int(values["image_size"]),
                float(values["crop_pct"]),
                values["interpolation"],
                tuple(map(float, values["mean"])),
                tuple(map(float, values["std"])),
            )
        except (TypeError, ValueError) as error:
            raise UserError(f"preprocessing is malformed: {error}") from error


def check_told(values: Mapping[str, Any], keys: set[str]) -> None:
    """Refuse a preprocessing that does not tell these keys alone, and pixels of 0 to 255.

    Raises:
        UserError: a key is missing or unknown, or the unit is another.
    """
    expected = keys | {"pixel_range"}
    if set(values) != expected:
        raise UserError(f"preprocessing has the keys {sorted(values)}, expected {sorted(expected)}")
    if list(values["pixel_range"]) != [0, 255]:
        raise UserError(f"preprocessing pixel_range is {values['pixel_range']}, expected [0, 255]")
