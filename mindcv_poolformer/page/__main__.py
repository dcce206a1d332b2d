"""Try a bundle in the browser: drop an image, see what the network says of it, and why.

python -m mindcv_poolformer.page --bundle runs/digits/bundle --examples data/digits/val

Of a segmenter's bundle it shows the classes of the pixels, in colours over the image; of a
detector's the objects on it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.folder import find_images
from ..data.preprocess import silence_pillow
from ..export.description import CLASSIFICATION, SEGMENTATION, read_description
from ..export.runtimes import RUNTIMES
from ..runtime.arguments import OneLineParser, port
from ..runtime.errors import UserError, run
from .detector import load_page_detector
from .model import load_page_model
from .segmenter import load_page_segmenter

if TYPE_CHECKING:
    import gradio as gr

MAX_EXAMPLES = 12
MAX_FILE_SIZE = 32 << 20
MAX_WAITING = 64  # visitors; those beyond are told that the page is busy


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = OneLineParser(
        prog="python -m mindcv_poolformer.page",
        description="Try a bundle in the browser.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--bundle", required=True, help="folder export.py wrote")
    parser.add_argument(
        "--ckpt_path", help="checkpoint of a classifier's bundle, for the Grad-CAM overlay"
    )
    parser.add_argument("--examples", help="folder of images to pick from")
    parser.add_argument("--dec_key_file", help="file with the key of an encrypted bundle")
    parser.add_argument(
        "--runtime", choices=RUNTIMES, default="auto", help="what runs the bundle, as of predict.py"
    )
    parser.add_argument("--device_target", choices=["CPU", "Ascend"], default="CPU", help="device")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all of the network"
    )
    parser.add_argument("--port", type=port, default=7860, help="port to listen on")
    return parser.parse_args()


def main() -> None:
    """Load, and show the page until a signal asks for the end."""
    arguments = parse_arguments()
    if importlib.util.find_spec("gradio") is None:
        raise UserError('gradio: found no such package, expected it: pip install ".[demo]"')
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read as gradio is imported
    from .frame import CSS, HEAD, theme

    examples = [] if arguments.examples is None else pick_examples(arguments.examples)
    silence_pillow()
    page = build(arguments, examples).queue(max_size=MAX_WAITING)
    try:
        page.launch(
            server_name=arguments.host,
            server_port=arguments.port,
            share=False,
            ssr_mode=False,
            mcp_server=False,
            footer_links=[],
            max_file_size=MAX_FILE_SIZE,
            allowed_paths=[str(path) for path in examples],
            theme=theme(),
            css=CSS,
            head=HEAD,
        )
    except OSError as error:
        reason = " ".join(str(error).split())
        where = f"{arguments.host}:{arguments.port}"
        raise UserError(f"{where}: cannot listen there ({reason:.160})") from error


def build(arguments: argparse.Namespace, examples: Sequence[Path]) -> gr.Blocks:
    """Load what is asked for, and put its page together.

    Raises:
        UserError: it cannot be loaded, or a checkpoint is given with another task's bundle.
    """
    from . import classes, objects, segments

    folder, checkpoint = arguments.bundle, arguments.ckpt_path
    options = {
        "runtime": arguments.runtime,
        "device_target": arguments.device_target,
        "key_file": arguments.dec_key_file,
    }
    task = read_description(folder).task
    if task == CLASSIFICATION:
        return classes.build(load_page_model(folder, checkpoint, **options), examples)
    if checkpoint is not None:
        raise UserError(
            f"--ckpt_path: found {checkpoint} with {folder}, a bundle of {task}, expected none: "
            "Grad-CAM explains classes of whole images"
        )
    if task == SEGMENTATION:
        return segments.build(load_page_segmenter(folder, **options), examples)
    return objects.build(load_page_detector(folder, **options), examples)


def pick_examples(folder: str) -> list[Path]:
    """Some of the images below a folder, spread over it.

    Raises:
        UserError: there is no such folder, or no image in it.
    """
    if not Path(folder).is_dir():
        raise UserError(f"--examples {folder}: found no such folder, expected one with images")
    paths = [path.resolve() for path in find_images([folder])]
    count = min(len(paths), MAX_EXAMPLES)
    return [paths[i * len(paths) // count] for i in range(count)]


if __name__ == "__main__":
    run(main)
