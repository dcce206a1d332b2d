"""Objects drawn over their picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..segmentation.labelling import Colour
from .mask_pasting import PastedMasks

BLACK, WHITE = (0, 0, 0), (255, 255, 255)
SMALLEST_TEXT = 10  # pixels high
BRIGHT = 140  # of 255, from which on text is black


def draw_objects(
    picture: Image.Image,
    boxes: np.ndarray,
    captions: Sequence[str],
    colours: Sequence[Colour],
    masks: PastedMasks | np.ndarray | None = None,
    opacity: float = 0.5,
) -> Image.Image:
    """Give the picture in RGB with a frame and a caption for each object, the first on top.

    Args:
        picture: left alone.
        boxes: (n, 4), (x1, y1, x2, y2) in its pixels.
        captions: n of them, written at the upper left corner.
        colours: n of them, of frame, caption and mask.
        masks: n of (H, W) bool, the objects' pixels; None for none.
        opacity: of the masks, 0 to 1.
    """
    drawn = picture.convert("RGB")
    order = range(len(boxes) - 1, -1, -1)
    for i in order if masks is not None else ():
        assert masks is not None
        opaque = Image.fromarray(masks[i] * np.uint8(round(255 * opacity)))
        drawn.paste(colours[i], mask=opaque)
    edge = min(drawn.size)
    width = max(1, round(edge / 200))
    font = ImageFont.load_default(max(SMALLEST_TEXT, edge / 32))
    canvas = ImageDraw.Draw(drawn)
    last = np.tile(drawn.size, 2) - 1
    for i in order:
        corners = np.minimum(boxes[i], last).tolist()
        canvas.rectangle(corners, outline=colours[i], width=width)
        _write(canvas, corners, captions[i], colours[i], font)
    return drawn


def _write(
    canvas: ImageDraw.ImageDraw,
    box: Sequence[float],
    caption: str,
    colour: Colour,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Write a caption above a box, or where there is no room in it; within the picture."""
    left, top, right, bottom = canvas.textbbox((0, 0), caption, font=font)
    wide, high = canvas.im.size
    width, height = right - left + 4, bottom - top + 4
    x = max(0, min(box[0], wide - width))
    y = box[1] - height if box[1] >= height else box[1]
    y = max(0, min(y, high - height))
    canvas.rectangle((x, y, x + width, y + height), fill=colour)
    canvas.text((x + 2 - left, y + 2 - top), caption, ink_on(colour), font)


def ink_on(colour: Colour) -> Colour:
    """Give black or white, what text can be read in on a colour."""
    return BLACK if np.dot(colour, (0.299, 0.587, 0.114)) >= BRIGHT else WHITE
