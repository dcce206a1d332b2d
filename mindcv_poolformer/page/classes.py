"""The page of a classifier: its most probable classes, and why."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import gradio as gr
import numpy as np
from PIL import Image

from ..data.pixels import resized_pixels
from ..export.bundle import Bundle
from ..export.runtimes import told
from ..runtime.counted import counted
from ..runtime.errors import UserError
from .frame import BEGIN, SHARED, framed, latency, say, status_line
from .image import read_image
from .model import PageModel

TOP_K = 5
GRAD_CAM = "Grad-CAM"


def build(model: PageModel, examples: Sequence[Path]) -> gr.Blocks:
    """Put the page together."""
    answers = Answers(model)
    with framed(model.bundle.model, _facts(model.bundle), examples) as (page, image):
        status = status_line()
        bars = gr.Label(num_top_classes=TOP_K, label="Top 5", elem_id="bars")
        cam = [] if model.cam is None else [_overlay_to_see()]
        image.change(answers.classify, image, [status, bars, *cam], **SHARED)
        if cam:
            bars.select(answers.choose, image, cam, **SHARED)
    return page


class Answers:
    """What the page shows for an image: words, bars and, with a checkpoint, an overlay."""

    def __init__(self, model: PageModel) -> None:
        self._model = model
        self._numbers = {name: number for number, name in enumerate(model.names)}

    def classify(self, path: str | None) -> list:
        """For an image that has come, or gone."""
        if path is None:
            return self._show(say(BEGIN))
        try:
            image = self._read(path)
        except UserError as error:
            return self._show(say(str(error), "error"))
        answer = self._model.classify(image)
        best = np.argsort(-answer.probabilities, kind="stable")[:TOP_K]
        names = self._model.names
        rows = {names[i]: float(answer.probabilities[i]) for i in best}
        words = f"{latency(answer.run_seconds, answer.prepare_seconds)}."
        return self._show(say(words, "done"), rows, image, int(best[0]))

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
        bundle = self._model.bundle
        return read_image(
            path,
            bundle.channels,
            lambda width, height: resized_pixels(width, height, bundle.transform),
        )

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
        from ..explaining.overlay import as_picture, overlay  # wants MindSpore

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


def _overlay_to_see() -> gr.Image:
    from ..explaining.overlay import LEGEND  # wants MindSpore

    cam = gr.Image(
        label=GRAD_CAM,
        interactive=False,
        buttons=["download", "fullscreen"],
        elem_id="cam",
        height=360,
    )
    gr.Markdown(f"{LEGEND.capitalize()}. Choose another class among the bars to see its own.")
    return cam


def _facts(bundle: Bundle) -> str:
    edge = bundle.transform.image_size
    count = len(bundle.classes)
    return (
        f"{counted(count, 'class')}, images of {edge} × {edge} pixels, {bundle.precision}, "
        f"in {told(bundle.runtime)}."
    )
