"""Grad-CAM maps drawn over pictures, and pictures side by side on a sheet."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ..data.preprocess import EvalTransform
from .gradcam import heat

EDGE = 512  # of a picture's longer side
COLOURS = "plasma"  # perceptually uniform: equal steps of a map look equal
FADED = 0.6  # towards white, what the network does not see
LEGEND = "yellow speaks most for the class; faded: cut off"
CELL = 2.3  # inches, of a sheet
HEAD = 0.15  # height of the heads' row, in cells
DPI = 120


def as_picture(image: Image.Image, edge: int = EDGE) -> Image.Image:
    """The whole image in RGB, with a longer side of ``edge`` pixels."""
    scale = edge / max(image.size)
    width, height = (max(1, round(scale * side)) for side in image.size)
    return image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)


def seen_box(size: tuple[int, int], transform: EvalTransform) -> tuple[int, int, int, int]:
    """Where on an image of that (width, height) the square lies that ``transform`` cuts out.

    Returns:
        left, top, right, bottom, rounded to whole pixels; there is one at least each way.
    """
    edge, shortest = transform.image_size, int(transform.image_size / transform.crop_pct)
    spans = []
    for side in size:
        resized = int(shortest * side / min(size))
        start = (resized - edge) // 2
        first = min(round(start * side / resized), side - 1)
        spans.append((first, max(round((start + edge) * side / resized), first + 1)))
    (left, right), (top, bottom) = spans
    return left, top, right, bottom


def overlay(
    picture: Image.Image,
    cam: np.ndarray,
    stride: int,
    transform: EvalTransform,
    alpha: float = 0.6,
) -> Image.Image:
    """A picture under the colours of a map, which lies on the square that the network saw.

    Where the scaled map is s, a pixel is (1 - alpha s) of the picture and alpha s of the colour of
    s: nothing where nothing speaks for the class. Outside of the square the picture is faded.

    Args:
        picture: RGB, of the whole image.
        cam: (h, w), of :class:`GradCam`.
        stride: of its stage.
        transform: that the image went through.
        alpha: opacity of the peak, 0 to 1.
    """
    left, top, right, bottom = seen_box(picture.size, transform)
    saw = (transform.image_size, transform.image_size)
    strength = heat(cam, stride, saw, (right - left, bottom - top))
    colours = matplotlib.colormaps[COLOURS](strength)[..., :3] * 255
    part = alpha * strength[..., None]
    pixels = np.asarray(picture, np.float64)
    drawn = (1 - FADED) * pixels + FADED * 255
    drawn[top:bottom, left:right] = (1 - part) * pixels[top:bottom, left:right] + part * colours
    return Image.fromarray(drawn.round().astype(np.uint8))


@dataclass(frozen=True, eq=False)
class SheetRow:
    """What stands side by side: a picture as it is and its overlays.

    Args:
        title: above the picture.
        picture: the image itself.
        cells: title and overlay for each column that follows, None for an empty place.
    """

    title: str
    picture: Image.Image
    cells: Sequence[tuple[str, Image.Image] | None]


def draw_sheet(heads: Sequence[str], rows: Sequence[SheetRow], path: Path) -> None:
    """Draw a row for each picture, with the overlays' columns under ``heads``, as a PNG."""
    heights = [np.clip(row.picture.height / row.picture.width, 0.25, 1.5) for row in rows]
    columns = 1 + len(heads)
    figure = Figure(
        figsize=(CELL * columns, CELL * (HEAD + sum(heights)) + 0.28 * len(rows) + 0.4),
        dpi=DPI,
        layout="constrained",
    )
    ratios = [HEAD, *heights]
    heading, *grid = figure.subplots(len(ratios), columns, squeeze=False, height_ratios=ratios)
    for place, head in zip(heading, ("image", *heads), strict=True):
        place.axis("off")
        place.text(
            0.5,
            0.5,
            _lines(head, 28),
            ha="center",
            va="center",
            weight="bold",
            size=9,
            parse_math=False,
        )
    for axes, row in zip(grid, rows, strict=True):
        for place, cell in zip(axes, ((row.title, row.picture), *row.cells), strict=True):
            place.axis("off")
            if cell is not None:
                title, picture = cell
                place.imshow(picture)
                place.set_title(_lines(title, 34), fontsize=8, parse_math=False)
    figure.supxlabel(LEGEND, fontsize=8)
    figure.savefig(path)


def _lines(text: str, width: int) -> str:
    """Text broken into at most two lines; file names may hold bytes that are no text."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "\n".join(textwrap.wrap(text, width, max_lines=2, placeholder=" …"))
