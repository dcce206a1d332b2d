"""What INT8 gives a classifier's bundle in ONNX Runtime: speed, agreement, accuracy.

python -m benchmarks.int8 --bundle runs/digits/bundle --images data/digits

The bundle is one in fp32; its graph is quantised as `export.py --precision int8` does, by images of
DIR/train. The two run in turns, and answer the images of DIR/val.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import numpy as np

from mindcv_poolformer.data.folder import ImageFolder, scan_folder
from mindcv_poolformer.data.preprocess import open_image
from mindcv_poolformer.export.bundle import Bundle, load_bundle
from mindcv_poolformer.export.description import ONNX, read_description
from mindcv_poolformer.export.int8 import MOST_CALIBRATION_IMAGES, evenly
from mindcv_poolformer.export.onnx.quantise import quantise
from mindcv_poolformer.export.onnx.run import as_network, open_session
from mindcv_poolformer.runtime.arguments import OneLineParser, at_least_one
from mindcv_poolformer.runtime.errors import UserError, run

from .report import table

BATCHES = (1, 8)
SECONDS = 1.0  # of a round
CHUNK = 32  # images in one run, beside the rounds

Network = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    """Quantise, time, compare, and print a table."""
    given = parse()
    bundle = load_bundle(given.bundle, runtime="onnx")
    if bundle.precision != "fp32":
        raise UserError(f"{given.bundle}: found it in {bundle.precision}, expected fp32")
    train, val = (scan_folder(given.images / part) for part in ("train", "val"))
    with tempfile.TemporaryDirectory(prefix="int8_") as work:
        graphs = {
            "fp32": read_description(given.bundle).checked(ONNX),
            "int8": Path(work) / ONNX,
        }
        quantise(*graphs.values(), [some(bundle, train, MOST_CALIBRATION_IMAGES)])
        sizes = {name: path.stat().st_size / 1e6 for name, path in graphs.items()}
        networks: dict[str, Network] = {
            name: as_network(open_session(path)) for name, path in graphs.items()
        }
    images = some(bundle, val, len(val))
    answers = {name: answer(network, images) for name, network in networks.items()}
    rates = {
        batch: race(networks, np.resize(images, (batch, *images.shape[1:])), given.rounds)
        for batch in BATCHES
    }
    labels = val.labels if val.classes == bundle.classes else None
    rows = [
        (
            name,
            f"{sizes[name]:.1f}",
            *[f"{rates[batch][name]:.1f}" for batch in BATCHES],
            f"{(found == answers['fp32']).mean():.1%}",
            "" if labels is None else f"{(found == labels).mean():.2%}",
        )
        for name, found in answers.items()
    ]
    rated = [f"batch {batch}, images/s" for batch in BATCHES]
    head = (f"{bundle.model}, {bundle.transform.image_size} px", "MB", *rated)
    print(table((*head, "same top-1", "top-1"), rows))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = OneLineParser(
        prog="int8", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, default=Path("runs/digits/bundle"))
    parser.add_argument("--images", type=Path, default=Path("data/digits"), help="train/, val/")
    parser.add_argument("--rounds", type=at_least_one, default=9)
    return parser.parse_args()


def some(bundle: Bundle, folder: ImageFolder, count: int) -> np.ndarray:
    """Images evenly from a folder, as the bundle's network takes them."""
    paths = (folder.paths[i] for i in evenly(len(folder), count))
    return bundle.prepare(open_image(path, bundle.channels) for path in paths)


def answer(network: Network, images: np.ndarray) -> np.ndarray:
    """The most probable class of each image."""
    starts = range(0, len(images), CHUNK)
    return np.concatenate([network(images[i : i + CHUNK]).argmax(1) for i in starts])


def race(networks: Mapping[str, Network], batch: np.ndarray, rounds: int) -> dict[str, float]:
    """Images per second of each, the median of rounds in turns."""
    rates: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(rounds):
        for name, network in networks.items():
            network(batch)
            started, runs = time.perf_counter(), 0
            while time.perf_counter() - started < SECONDS:
                network(batch)
                runs += 1
            rates[name].append(runs * len(batch) / (time.perf_counter() - started))
    return {name: median(found) for name, found in rates.items()}


if __name__ == "__main__":
    run(main)
