"""A bundle in MindSpore Lite on an NPU: its answers beside the golden ones, and images/s.

python -m benchmarks.lite --bundle runs/digits/bundle --model model_lite.mindir

Follows MindSpore Lite's documentation; it has not been run by this project, which had no NPU.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from mindcv_poolformer.export.description import MINDIR, read_description
from mindcv_poolformer.runtime.arguments import OneLineParser, at_least_one
from mindcv_poolformer.runtime.errors import UserError, run

WARM_UP = 3  # runs
PRECISIONS = ("enforce_fp16", "preferred_fp32", "enforce_fp32")


def main() -> None:
    """Compare, then time each batch size."""
    given = parse()
    images, expected = golden(given.bundle)
    model = load(given)
    found = infer(model, images)
    print(
        f"{given.model or given.bundle / MINDIR}, {given.precision}: outputs of {len(images)} "
        f"golden images within {np.abs(found - expected).max():.2g} of the checkpoint's, top-1 "
        f"equal on {(found.argmax(1) == expected.argmax(1)).mean():.0%}"
    )
    for size in given.batch_sizes:
        print(f"batch {size}: {rate(model, images, size, given.runs):.1f} images/s")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = OneLineParser(
        prog="lite", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, default=Path("runs/digits/bundle"))
    parser.add_argument("--model", type=Path, help="what converter_lite made of its model.mindir")
    parser.add_argument("--precision", choices=PRECISIONS, default="enforce_fp32")
    parser.add_argument("--device_id", type=int, default=0)
    parser.add_argument("--batch_sizes", type=at_least_one, nargs="+", default=[1, 8, 16])
    parser.add_argument("--runs", type=at_least_one, default=50, help="of each batch size")
    return parser.parse_args()


def load(given: argparse.Namespace) -> Any:
    """Build the model, a ``mindspore_lite.Model``, for the NPU.

    Raises:
        UserError: MindSpore Lite is not installed.
    """
    try:
        import mindspore_lite as lite
    except ImportError:
        raise UserError(
            "lite: found no package mindspore_lite, expected that of your CANN's release"
        ) from None
    context = lite.Context()
    context.target = ["ascend"]
    context.ascend.device_id = given.device_id
    context.ascend.precision_mode = given.precision  # MindSpore Lite's default is enforce_fp16
    model = lite.Model()
    path = given.model or given.bundle / MINDIR
    model.build_from_file(str(path), lite.ModelType.MINDIR, context)
    return model


def golden(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Give a bundle's golden images, as its graph takes them, and the checkpoint's outputs.

    Raises:
        UserError: the folder is no bundle, or its golden pair is damaged.
    """
    description = read_description(folder)
    path = description.checked(description.golden[description.image_sizes[0]])
    with np.load(path) as entries:
        images = entries["pixels" if description.takes == "uint8" else "images"]
        return images, entries[description.gives]


def infer(model: Any, images: np.ndarray) -> np.ndarray:
    """Run the model on a batch; the shape must be one that the conversion has named."""
    inputs = model.get_inputs()
    model.resize(inputs, [list(images.shape)])
    inputs[0].set_data_from_numpy(images)
    return model.predict(inputs)[0].get_data_to_numpy()


def rate(model: Any, images: np.ndarray, size: int, runs: int) -> float:
    """Give images/s at a batch size, the copies to and from the device included."""
    batch = np.resize(images, (size, *images.shape[1:]))
    for _ in range(WARM_UP):
        infer(model, batch)
    started = time.perf_counter()
    for _ in range(runs):
        infer(model, batch)
    return runs * size / (time.perf_counter() - started)


if __name__ == "__main__":
    run(main)
