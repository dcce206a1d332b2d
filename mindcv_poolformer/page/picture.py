"""The page of a segmenter or a detector: an image under what is found on it, and a table below."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from ..data.segmentation.labelling import Colour
from ..export.bundle import LoadedGraph
from ..export.image_size import Size, shown
from ..export.runtimes import told
from ..runtime.errors import UserError
from .frame import BEGIN, SHARED, framed, say, status_line
from .image import read_image

MOST_SHOWN = 1024  # pixels of the longer edge, of what goes to the browser
Look = Callable[[Image.Image], list[str]]


@dataclass(frozen=True)
class Knob:
    """A slider from 0 to 1 that the browser follows by itself: nothing is computed anew.

    Args:
        label: beside it.
        value: at first.
        follow: the browser's function of its value.
    """

    label: str
    value: float
    follow: str


def picture_page(
    model: str,
    facts: str,
    examples: Sequence[Path],
    knob: Knob,
    resized_pixels: Callable[[int, int], int],
    look: Look,
) -> gr.Blocks:
    """Put the page together.

    Args:
        model: name of the model.
        facts: about it, in a sentence.
        examples: images to pick from.
        knob: below the image.
        resized_pixels: of the images, see :func:`read_image`.
        look: from an RGB picture to what is said, :func:`figure` and :func:`table`; may raise
            UserError.
    """

    def answer(path: str | None) -> list[str]:
        """For an image that has come, or gone."""
        if path is None:
            return [say(BEGIN), "", ""]
        try:
            return look(read_image(path, 3, resized_pixels))
        except UserError as error:
            return [say(str(error), "error"), "", ""]

    with framed(model, facts, examples) as (page, image):
        status = status_line()
        seen = gr.HTML(elem_id="seen", padding=False)
        slider = gr.Slider(0, 1, knob.value, step=0.05, label=knob.label)
        legend = gr.HTML(elem_id="legend", padding=False)
        answered = image.change(answer, image, [status, seen, legend], **SHARED)
        for event in (answered.then, slider.input):
            event(None, slider, js=knob.follow, api_visibility="private")
    return page


def figure(picture: Image.Image, above: str) -> str:
    """The image, and elements that the browser lays over it."""
    below = as_url(picture.resize(shown_size(*picture.size)), "WEBP")
    return f'<figure class="seen"><img alt="the image" src="{below}">{above}</figure>'


def shown_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of an image in the browser."""
    factor = min(1, MOST_SHOWN / max(width, height))
    return max(1, round(width * factor)), max(1, round(height * factor))


def as_url(image: Image.Image, file_format: str) -> str:
    """An image as a data URL."""
    content = BytesIO()
    image.save(content, file_format)
    return (
        f"data:image/{file_format.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"
    )


def table(name: str, rows: Iterable[str]) -> str:
    """A table of :func:`table_row`."""
    return f'<div class="legend"><table aria-label="{name}">{"".join(rows)}</table></div>'


def table_row(colour: Colour, cells: Iterable[str], attributes: str = "") -> str:
    """A row of texts behind a field in a colour."""
    texts = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
    return f'<tr{attributes}><td><i style="background: {css(colour)}"></i></td>{texts}</tr>'


def css(colour: Colour) -> str:
    """A colour in the browser's words."""
    return f"rgb({', '.join(map(str, colour))})"


def told_graphs(graphs: Mapping[Size, LoadedGraph[Any]]) -> str:
    """What is said of a bundle's graphs, the end of a sentence."""
    first = next(iter(graphs.values()))
    return (
        f"the network sees images of {', '.join(map(shown, graphs))} pixels (height × width), "
        f"{first.precision}, in {told(first.runtime)}."
    )
