"""The page of a segmenter: the classes of the pixels, in colours over the image, and a legend."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import gradio as gr
import numpy as np
from PIL import Image

from ..data.segmentation.labelling import shares_of
from ..export.image_size import shown
from ..export.runtimes import told
from ..export.segmenter import SegmenterBundle
from ..runtime.errors import UserError
from .frame import BEGIN, SHARED, framed, say, status_line
from .image import read_image
from .segmenter import PageSegmenter, Segments

OPACITY = 0.5  # as predict.py has it
MOST_SHOWN = 1024  # pixels of the longer edge, of what goes to the browser
# The browser lays the colours over the image, so that nothing is computed anew.
SET_OPACITY = 'value => document.querySelector("#seen").style.setProperty("--opacity", value)'


def build(model: PageSegmenter, examples: Sequence[Path]) -> gr.Blocks:
    """Put the page together."""
    answers = Answers(model)
    with framed(model.bundle.model, _facts(model.bundle), examples) as (page, image):
        status = status_line()
        seen = gr.HTML(elem_id="seen", padding=False)
        opacity = gr.Slider(0, 1, OPACITY, step=0.05, label="Opacity", elem_id="opacity")
        legend = gr.HTML(elem_id="legend", padding=False)
        image.change(answers.segment, image, [status, seen, legend], **SHARED)
        opacity.input(None, opacity, js=SET_OPACITY, api_visibility="private")
    return page


class Answers:
    """What the page shows for an image: words, the image under colours, and a legend."""

    def __init__(self, model: PageSegmenter) -> None:
        self._model = model

    def segment(self, path: str | None) -> list[str]:
        """For an image that has come, or gone."""
        if path is None:
            return [say(BEGIN), "", ""]
        bundle = self._model.bundle
        try:
            picture = read_image(path, 3, bundle.resized_pixels)
            found = self._model.segment(picture)
        except UserError as error:
            return [say(str(error), "error"), "", ""]
        colours = Image.fromarray(bundle.labelling.coloured(found.labels))
        return [
            say(_latency(found), "done"),
            _seen(picture, colours),
            _legend(found.labels, bundle),
        ]


def _seen(picture: Image.Image, colours: Image.Image) -> str:
    """The image and its classes' colours, one over the other."""
    factor = min(1, MOST_SHOWN / max(picture.size))
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    below = picture.resize(size)
    above = colours.resize(size, Image.Resampling.NEAREST)
    return (
        '<figure class="seen">'
        f'<img alt="the image" src="{_as_url(below, "WEBP")}">'
        f'<img alt="the colours of its classes" src="{_as_url(above, "PNG")}">'
        "</figure>"
    )


def _as_url(image: Image.Image, file_format: str) -> str:
    content = BytesIO()
    image.save(content, file_format)
    return (
        f"data:image/{file_format.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"
    )


def _legend(labels: np.ndarray, bundle: SegmenterBundle) -> str:
    """Colour, name and share of each class that is there, the largest first."""
    rows = []
    for index, share in shares_of(labels):
        red, green, blue = bundle.labelling.palette[index]
        rows.append(
            f'<tr><td><i style="background: rgb({red}, {green}, {blue})"></i></td>'
            f"<td>{html.escape(bundle.classes[index])}</td><td>{share:.1%}</td></tr>"
        )
    return f'<div class="legend"><table aria-label="Classes">{"".join(rows)}</table></div>'


def _facts(bundle: SegmenterBundle) -> str:
    sizes = ", ".join(map(shown, bundle.graphs))
    first = next(iter(bundle.graphs.values()))
    return (
        f"A class out of {len(bundle.classes):,} for each pixel; the network sees images of "
        f"{sizes} pixels (height × width), {first.precision}, in {told(first.runtime)}."
    )


def _latency(found: Segments) -> str:
    prepare, run, resize = (
        f"{seconds * 1000:.1f} ms"
        for seconds in (found.prepare_seconds, found.run_seconds, found.resize_seconds)
    )
    return (
        f"Answered in {run} by the network, after {prepare} of preparation; "
        f"{resize} more for every pixel of the image."
    )
