"""Images that visitors of the page send, read with care."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from ..data.pixels import MOST_PIXELS
from ..data.preprocess import convert, turn_upright
from ..runtime.errors import UserError
from ..runtime.image_modes import MODES

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")


def read_image(
    path: str | Path, channels: int, resized_pixels: Callable[[int, int], int]
) -> Image.Image:
    """Read an image that a visitor sends, upright as the browser shows it.

    Args:
        path: of the file.
        channels: of the result.
        resized_pixels: gives the pixels that one of a width and a height will have, resized.

    Raises:
        UserError: the file is no image, is damaged, or has more pixels than are good for a server,
            in words for the visitor.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            _check_size(*image.size, resized_pixels(*image.size))
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


def _check_size(width: int, height: int, resized: int) -> None:
    """Refuse an image that is large, or will be."""
    if max(width * height, resized) > MOST_PIXELS:
        found = f"{width:,} x {height:,} = {width * height:,} pixels"
        if width * height <= MOST_PIXELS:
            found = f"{width:,} x {height:,} pixels, and {resized:,} once resized"
        raise UserError(f"The image has {found}; at most {MOST_PIXELS:,} are taken.")
