"""Images on the page: read with care, as the network sees them, and under a Grad-CAM map."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

from ..data.preprocess import MODES, EvalTransform, convert, turn_upright
from ..runtime.errors import UserError
from .pixels import MOST_PIXELS, resized_pixels

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
OVERLAY_EDGE = 448
COLOURS = "turbo"
OPACITY = 0.6  # of the peak; where a map is 0 the image is seen as it is


def read_image(path: str | Path, channels: int, transform: EvalTransform) -> Image.Image:
    """Read an image that a visitor sends, upright as the browser shows it.

    Raises:
        UserError: the file is no image, is damaged, or has more pixels than are good for a server,
            in words for the visitor.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            _check_size(*image.size, transform)
            upright = turn_upright(image)
            upright.load()
            return upright if upright.mode == MODES[channels] else convert(upright, channels)
    except Image.UnidentifiedImageError:
        raise UserError(
            f"This is not an image in one of the formats {', '.join(FORMATS)}."
        ) from None
    except Image.DecompressionBombError:
        raise UserError(f"The image has more than {MOST_PIXELS:,} pixels.") from None
    # Pillow's decoders answer damaged data with any of these.
    except (OSError, SyntaxError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"The image cannot be read: {reason:.120}.") from None


def seen(image: Image.Image, transform: EvalTransform, edge: int = OVERLAY_EDGE) -> Image.Image:
    """The square of an image that ``transform`` hands to the network, ``edge`` pixels wide, RGB."""
    shortest = int(transform.image_size / transform.crop_pct)
    width, height = (int(shortest * side / min(image.size)) for side in image.size)
    left = (width - transform.image_size) // 2 * image.width / width
    top = (height - transform.image_size) // 2 * image.height / height
    right = left + transform.image_size * image.width / width
    bottom = top + transform.image_size * image.height / height
    box = (left, top, min(right, image.width), min(bottom, image.height))
    return image.convert("RGB").resize((edge, edge), Image.Resampling.BICUBIC, box)


def overlay(picture: Image.Image, strength: np.ndarray) -> Image.Image:
    """An RGB picture under the colours of a map of its size, (height, width), 0 to 1."""
    colours = matplotlib.colormaps[COLOURS](strength)[..., :3] * 255
    part = OPACITY * strength[..., None]
    mixed = (1 - part) * np.asarray(picture) + part * colours
    return Image.fromarray(mixed.round().astype(np.uint8))


def _check_size(width: int, height: int, transform: EvalTransform) -> None:
    """Refuse an image that is large, or will be."""
    resized = resized_pixels(width, height, transform)
    if max(width * height, resized) > MOST_PIXELS:
        found = f"{width:,} x {height:,} = {width * height:,} pixels"
        if width * height <= MOST_PIXELS:
            found = f"{width:,} x {height:,} pixels, and {resized:,} once resized"
        raise UserError(f"The image has {found}; at most {MOST_PIXELS:,} are taken.")
