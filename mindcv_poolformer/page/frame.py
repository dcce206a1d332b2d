"""What the page has whatever a bundle is for. Nothing in it comes from another host."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components.image import ImageData

from ..data.pixels import MOST_PIXELS

BEGIN = "Drop an image, paste one, or pick an example."
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
.seen { position: relative; margin: 0; overflow: hidden; }
.seen img { display: block; width: 100%; margin: 0 !important; }
.seen img + img { position: absolute; inset: 0; height: 100%; opacity: var(--opacity, .5); }
.object, .object > * { position: absolute; }
.object { inset: 0; }
.box { border: 2px solid; box-sizing: border-box; }
.box span { position: absolute; padding: 0 .25rem; font-size: .8rem; line-height: 1.25;
            white-space: nowrap; }
.box .above { bottom: 100%; }
.box .below { top: -2px; }
.box .left { left: -2px; }
.box .right { right: -2px; }
.object[hidden], .legend [hidden] { display: none !important; }
.legend { max-height: 20rem; overflow-y: auto; }
.legend table { width: 100%; margin: 0 !important; }
.legend table, .legend tr, .legend td, .legend th { border: 0 !important; }
.legend td, .legend th { padding: .2rem .6rem !important; }
.legend td:first-child { width: 1.2rem; }
.legend td:last-child, .legend th:last-child { text-align: right; }
.legend td { font-variant-numeric: tabular-nums; }
.legend i { display: inline-block; width: 1.2rem; height: 1.2rem; vertical-align: middle;
            border: 1px solid var(--border-color-primary); border-radius: 3px; }
:focus-visible { outline: 3px solid #0f766e !important; outline-offset: 2px; }
footer { display: none !important; }
"""
# Of a handler that waits for the device.
SHARED: dict[str, Any] = {
    "concurrency_limit": 1,
    "concurrency_id": "device",
    "api_visibility": "private",
    "show_progress": "minimal",
}


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


@contextmanager
def framed(
    model: str, facts: str, examples: Sequence[Path]
) -> Iterator[tuple[gr.Blocks, PickedImage]]:
    """A page and its image; what is made in the block stands beside the image.

    Args:
        model: name of the model.
        facts: about it, in a sentence.
        examples: images to pick from.
    """
    title = f"{model}: try it"
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(
            f"# {model}\n{facts} Images stay on this server and are deleted within two hours. "
            f"At most {MOST_PIXELS // 1_000_000} megapixels."
        )
        with gr.Row(equal_height=False):
            with gr.Column(min_width=300):
                image = _image_to_choose(examples)
            with gr.Column(min_width=300):
                yield page, image
        page.load(None, js=WHEN_LOADED)


def status_line() -> gr.HTML:
    """Where the page says what it has done, or what is wrong."""
    return gr.HTML(say(BEGIN), elem_id="status", padding=False)


def say(words: str, kind: str = "idle") -> str:
    """A line that screen readers read out as it appears; an error at once."""
    role = "alert" if kind == "error" else "status"
    return f'<p class="status {kind}" role="{role}">{html.escape(words)}</p>'


def latency(run_seconds: float, prepare_seconds: float) -> str:
    """How long an answer took, the beginning of a sentence."""
    return (
        f"Answered in {run_seconds * 1000:.1f} ms by the network, "
        f"after {prepare_seconds * 1000:.1f} ms of preparation"
    )


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
