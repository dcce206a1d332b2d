"""How the page looks, and what happens where on it. Nothing in it comes from another host."""

from __future__ import annotations

import html
import time
from collections.abc import Sequence
from pathlib import Path

import gradio as gr
import numpy as np
from gradio.components.image import ImageData
from PIL import Image

from ..data.pixels import MOST_PIXELS
from ..explaining.overlay import LEGEND, as_picture, overlay
from ..export.bundle import Bundle
from ..runtime.errors import UserError
from .image import read_image
from .model import Answer, PageModel

TOP_K = 5
BEGIN = "Drop an image, paste one, or pick an example."
GRAD_CAM = "Grad-CAM"
HEAD = '<meta name="referrer" content="no-referrer">'
# Gradio names no example, and pastes by its button alone.
WHEN_LOADED = """() => {
    document.querySelectorAll("#examples button").forEach(
        (button, index) => button.setAttribute("aria-label", `Example ${index + 1}`));
    document.addEventListener("paste", event => {
        const image = [...event.clipboardData.files].find(file => file.type.startsWith("image/"));
        const input = document.querySelector("#image input[type=file]");
        if (!image || !input) return;
        const held = new DataTransfer();
        held.items.add(image);
        input.files = held.files;
        input.dispatchEvent(new Event("change", {bubbles: true}));
    });
}"""
CSS = """
.gradio-container { max-width: 1080px !important; margin: 0 auto !important; }
#image img { width: 100%; height: 100%; object-fit: contain; }
.status { margin: 0; padding: .6rem .9rem; border-radius: 4px; line-height: 1.45;
          border-left: 4px solid var(--border-color-primary);
          background: var(--block-background-fill); color: var(--body-text-color); }
.status.done { border-left-color: #0f766e; }
.status.error { border-left-color: #b91c1c; font-weight: 600; }
:focus-visible { outline: 3px solid #0f766e !important; outline-offset: 2px; }
footer { display: none !important; }
"""


class PickedImage(gr.Image):
    """An image whose file this project reads: Gradio would decode it whatever its size is."""

    is_template = True  # to the browser it is a gr.Image

    def preprocess(self, payload: ImageData | None) -> str | None:
        """The path of the uploaded file; Gradio has made sure that it is an upload."""
        return None if payload is None else payload.path or ""


def theme() -> gr.themes.Base:
    """Fonts that the visitor's system has."""
    return gr.themes.Default(
        primary_hue="teal",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )


def build(model: PageModel, examples: Sequence[Path]) -> gr.Blocks:
    """Put the page together."""
    title = f"{model.bundle.model}: try it"
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(_heading(model.bundle))
        with gr.Row(equal_height=False):
            with gr.Column(min_width=300):
                image = _image_to_choose(examples)
            with gr.Column(min_width=300):
                status = gr.HTML(_say(BEGIN), elem_id="status", padding=False)
                bars = gr.Label(num_top_classes=TOP_K, label="Top 5", elem_id="bars")
                cam = [] if model.cam is None else [_overlay_to_see()]
        answers = Answers(model)
        shared = {"concurrency_limit": 1, "concurrency_id": "device", "api_visibility": "private"}
        shared["show_progress"] = "minimal"
        page.load(None, js=WHEN_LOADED)
        image.change(answers.classify, image, [status, bars, *cam], **shared)
        if cam:
            bars.select(answers.choose, image, cam, **shared)
    return page


class Answers:
    """What the page shows for an image: words, bars and, with a checkpoint, an overlay."""

    def __init__(self, model: PageModel) -> None:
        self._model = model
        self._numbers = {name: number for number, name in enumerate(model.names)}

    def classify(self, path: str | None) -> list:
        """For an image that has come, or gone."""
        if path is None:
            return self._show(_say(BEGIN))
        try:
            image = self._read(path)
        except UserError as error:
            return self._show(_say(str(error), "error"))
        answer = self._model.classify(image)
        best = np.argsort(-answer.probabilities, kind="stable")[:TOP_K]
        names = self._model.names
        rows = {names[i]: float(answer.probabilities[i]) for i in best}
        return self._show(_say(_latency(answer), "done"), rows, image, int(best[0]))

    def choose(self, path: str | None, chosen: gr.SelectData) -> gr.Image:
        """The overlay for another class."""
        if path is None:
            return gr.Image(None, label=GRAD_CAM)
        try:
            image = self._read(path)
        except UserError as error:  # another image has come in the meantime
            raise gr.Error(str(error)) from None
        return self._explain(image, self._numbers[chosen.value])

    def _read(self, path: str) -> Image.Image:
        return read_image(path, self._model.bundle.channels, self._model.bundle.transform)

    def _show(
        self,
        words: str,
        rows: dict[str, float] | None = None,
        image: Image.Image | None = None,
        label: int = 0,
    ) -> list:
        if self._model.cam is None:
            return [words, rows]
        nothing = gr.Image(None, label=GRAD_CAM)
        return [words, rows, nothing if image is None else self._explain(image, label)]

    def _explain(self, image: Image.Image, label: int) -> gr.Image:
        model = self._model
        started = time.perf_counter()
        cam = model.explain(image, label)
        seconds = time.perf_counter() - started
        about = f"{GRAD_CAM} for {model.names[label]}"
        if cam.any():
            height, width = cam.shape
            about += f": {height} × {width} places, {seconds * 1000:.0f} ms"
        else:
            about += ": no place speaks for this class"
        assert model.cam is not None  # it has explained
        picture = overlay(as_picture(image), cam, model.cam.stride, model.bundle.transform)
        return gr.Image(picture, label=about, alt_text=about)


def _image_to_choose(examples: Sequence[Path]) -> PickedImage:
    image = PickedImage(
        label="Image",
        sources=["upload", "clipboard"],
        height=320,
        buttons=[],
        elem_id="image",
        alt_text="the image you have chosen",
        placeholder="Drop an image, click to upload, or paste",
    )
    if examples:
        gr.Examples(
            [[str(path)] for path in examples],
            image,
            examples_per_page=12,
            label="Or pick one",
            elem_id="examples",
        )
    return image


def _overlay_to_see() -> gr.Image:
    cam = gr.Image(
        label=GRAD_CAM,
        interactive=False,
        buttons=["download", "fullscreen"],
        elem_id="cam",
        height=360,
    )
    gr.Markdown(f"{LEGEND.capitalize()}. Choose another class among the bars to see its own.")
    return cam


def _heading(bundle: Bundle) -> str:
    edge = bundle.transform.image_size
    return (
        f"# {bundle.model}\n"
        f"{len(bundle.classes):,} classes, images of {edge} × {edge} pixels, {bundle.precision}. "
        f"Images stay on this server and are deleted within two hours. "
        f"At most {MOST_PIXELS // 1_000_000} megapixels."
    )


def _latency(answer: Answer) -> str:
    return (
        f"Answered in {answer.run_seconds * 1000:.1f} ms by the network, "
        f"after {answer.prepare_seconds * 1000:.1f} ms of preparation."
    )


def _say(words: str, kind: str = "idle") -> str:
    """A line that screen readers read out as it appears; an error at once."""
    role = "alert" if kind == "error" else "status"
    return f'<p class="status {kind}" role="{role}">{html.escape(words)}</p>'
