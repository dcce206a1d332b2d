"""The page of a segmenter: the classes of the pixels, in colours over the image, and a legend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gradio as gr
import numpy as np
from PIL import Image

from ..data.segmentation.labelling import shares_of
from ..export.segmenter import SegmenterBundle
from .frame import latency, say
from .picture import (
    Knob,
    as_url,
    figure,
    picture_page,
    shown_size,
    table,
    table_row,
    told_graphs,
)
from .segmenter import PageSegmenter

# As predict.py has it.
OPACITY = Knob(
    "Opacity",
    0.5,
    'value => document.querySelector("#seen").style.setProperty("--opacity", value)',
)


def build(model: PageSegmenter, examples: Sequence[Path]) -> gr.Blocks:
    """Put the page together."""
    bundle = model.bundle
    facts = f"A class out of {len(bundle.classes):,} for each pixel; {told_graphs(bundle.graphs)}"

    def look(picture: Image.Image) -> list[str]:
        found = model.segment(picture)
        words = (
            f"{latency(found.run_seconds, found.prepare_seconds)}; "
            f"{found.resize_seconds * 1000:.1f} ms more for every pixel of the image."
        )
        colours = Image.fromarray(bundle.labelling.coloured(found.labels))
        above = colours.resize(shown_size(*colours.size), Image.Resampling.NEAREST)
        image = f'<img alt="the colours of its classes" src="{as_url(above, "PNG")}">'
        return [say(words, "done"), figure(picture, image), _legend(found.labels, bundle)]

    return picture_page(bundle.model, facts, examples, OPACITY, bundle.resized_pixels, look)


def _legend(labels: np.ndarray, bundle: SegmenterBundle) -> str:
    """Colour, name and share of each class that is there, the largest first."""
    palette, names = bundle.labelling.palette, bundle.classes
    rows = [
        table_row(palette[index], (names[index], f"{share:.1%}"))
        for index, share in shares_of(labels)
    ]
    return table("Classes", rows)
