"""The page of a detector: boxes, names, scores and masks over the image, and a list of them."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import gradio as gr
import numpy as np
from PIL import Image

from ..data.detection.drawing import ink_on
from ..data.detection.mask_pasting import PastedMasks
from ..data.detection.objects import THRESHOLD, Detection
from ..data.segmentation.labelling import Colour
from ..runtime.counted import counted
from .detector import PageDetector
from .frame import latency, say
from .picture import (
    Knob,
    as_url,
    css,
    figure,
    picture_page,
    shown_size,
    table,
    table_row,
    told_graphs,
)

OPACITY = 128  # of masks, of 255
ROOM = 0.08  # of the height: boxes that begin above have their names within
SURER = Knob(
    "Threshold",
    THRESHOLD,
    """value => document.querySelectorAll("[data-score]").forEach(
        object => { object.hidden = !(Number(object.dataset.score) > value); })""",
)


def build(model: PageDetector, examples: Sequence[Path]) -> gr.Blocks:
    """Put the page together."""
    bundle = model.bundle
    least = bundle.objects.score_threshold
    facts = (
        f"Finds objects of {counted(len(bundle.classes), 'class')}; {told_graphs(bundle.graphs)}"
    )

    def look(picture: Image.Image) -> list[str]:
        found = model.find(picture)
        words = (
            f"{latency(found.run_seconds, found.prepare_seconds)}; "
            f"objects with scores above {least:g}: {len(found.objects.scores)}."
        )
        above = objects_over(found.objects, picture.size)
        return [say(words, "done"), figure(picture, above), objects_listed(found.objects)]

    return picture_page(bundle.model, facts, examples, SURER, bundle.resized_pixels, look)


def objects_over(found: Detection, size: tuple[int, int]) -> str:
    """Elements over an image of a width and a height, the surest last; the browser shows them."""
    masks = [None] * len(found.scores) if found.masks is None else found.masks
    if isinstance(masks, PastedMasks):
        masks = masks.resized(shown_size(*size)[::-1])
    rows = zip(found.names, found.scores, found.labels, found.boxes / (size * 2), masks)
    elements = []
    for name, score, label, box, mask in rows:
        colour = found.palette[label]
        pixels = "" if mask is None else _mask(mask, colour)
        frame = _frame(box, f"{name} {score:.2f}", colour)
        elements.append(f'<div class="object"{_hidden(score)}>{pixels}{frame}</div>')
    return "".join(reversed(elements))


def objects_listed(found: Detection) -> str:
    """Colour, name, score and box of each, the surest first; the browser shows them."""
    rows = ["<tr><th></th><th>class</th><th>score</th><th>box: x1 y1 x2 y2, pixels</th></tr>"]
    for name, score, label, box in zip(found.names, found.scores, found.labels, found.boxes):
        cells = (name, f"{score:.2f}", " ".join(f"{x:.0f}" for x in box))
        rows.append(table_row(found.palette[label], cells, _hidden(score)))
    return table("Objects", rows)


def _hidden(score: float) -> str:
    return f' hidden data-score="{float(score)}"'


def _frame(box: np.ndarray, caption: str, colour: Colour) -> str:
    """A box, x1, y1, x2, y2 as parts of the image's width and height, and its caption."""
    x1, y1, x2, y2 = box.tolist()
    at = f"{'below' if y1 < ROOM else 'above'} {'left' if x1 + x2 < 1 else 'right'}"
    ink = css(ink_on(colour))
    return (
        f'<div class="box" style="{_place(x1, y1, x2, y2)}; border-color: {css(colour)}">'
        f'<span class="{at}" style="background: {css(colour)}; color: {ink}">'
        f"{html.escape(caption)}</span></div>"
    )


def _mask(mask: np.ndarray, colour: Colour) -> str:
    """An object's pixels (H, W) bool, as an image of no more than them."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not len(rows):
        return ""
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    height, width = mask.shape
    inner = Image.fromarray(mask[top:bottom, left:right].astype(np.uint8) * OPACITY)
    image = Image.new("RGBA", inner.size, colour)
    image.putalpha(inner)
    place = _place(left / width, top / height, right / width, bottom / height)
    return f'<img alt="" style="{place}" src="{as_url(image, "PNG")}">'


def _place(x1: float, y1: float, x2: float, y2: float) -> str:
    parts = {"left": x1, "top": y1, "width": x2 - x1, "height": y2 - y1}
    return "; ".join(f"{name}: {part:.3%}" for name, part in parts.items())
