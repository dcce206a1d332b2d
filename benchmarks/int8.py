"""What INT8 would give a classifier's bundle in ONNX Runtime: speed, agreement, accuracy.

python -m benchmarks.int8 --bundle runs/digits/bundle --images data/digits

ONNX Runtime's own tools quantise the bundle's graph: activations to UINT8 by what images of
DIR/train give (MinMax), weights to INT8 by output channel, as QuantizeLinear and DequantizeLinear
around operators. The graphs run in turns, and answer the images of DIR/val.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from mindcv_poolformer.data.folder import ImageFolder, scan_folder
from mindcv_poolformer.data.preprocess import open_image
from mindcv_poolformer.export.bundle import Bundle, load_bundle
from mindcv_poolformer.export.description import read_description
from mindcv_poolformer.export.onnx.run import open_session
from mindcv_poolformer.runtime.arguments import OneLineParser, at_least_one
from mindcv_poolformer.runtime.errors import UserError, run

from .report import table

FP32 = "nothing"
BATCHES = (1, 8)
SECONDS = 1.0  # of a round
CHUNK = 32  # images in one run, beside the rounds

Network = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    """Quantise, time, compare, and print a table."""
    given = parse()
    bundle = load_bundle(given.bundle, runtime="onnx")
    train, val = (scan_folder(given.images / part) for part in ("train", "val"))
    with tempfile.TemporaryDirectory(prefix="int8_") as work:
        graphs = quantise(given.bundle, some(bundle, train, given.calibration_images), Path(work))
        sizes = {name: path.stat().st_size / 1e6 for name, path in graphs.items()}
        networks = {name: load(path) for name, path in graphs.items()}
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
            f"{(found == answers[FP32]).mean():.1%}",
            "" if labels is None else f"{(found == labels).mean():.2%}",
        )
        for name, found in answers.items()
    ]
    heads = [f"batch {batch}, images/s" for batch in BATCHES]
    print(table((f"{bundle.model}: INT8 is", "MB", *heads, "same top-1", "top-1"), rows))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = OneLineParser(
        prog="int8", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, default=Path("runs/digits/bundle"))
    parser.add_argument("--images", type=Path, default=Path("data/digits"), help="train/, val/")
    parser.add_argument("--calibration_images", type=at_least_one, default=128)
    parser.add_argument("--rounds", type=at_least_one, default=9)
    return parser.parse_args()


def some(bundle: Bundle, folder: ImageFolder, count: int) -> np.ndarray:
    """Images evenly from a folder, as the bundle's network takes them."""
    chosen = np.linspace(0, len(folder) - 1, min(count, len(folder))).astype(int)
    return bundle.prepare(open_image(folder.paths[i], bundle.channels) for i in chosen)


def quantise(folder: Path, images: np.ndarray, work: Path) -> dict[str, Path]:
    """Write the graphs to compare, by what is INT8 in each.

    Raises:
        UserError: the bundle has more than one graph.
    """
    description = read_description(folder)
    files = [name for name in description.files if name.endswith(".onnx")]
    if len(files) != 1:
        raise UserError(f"{folder}: found {len(files)} ONNX graphs, expected 1")
    prepared = work / "prepared.onnx"
    quant_pre_process(description.checked(files[0]), prepared, skip_symbolic_shape=True)
    choices: Mapping[str, Sequence[str] | None] = {
        "convolutions of 1 x 1": pointwise(prepared),
        "convolutions and products": named(prepared, ("Conv", "Gemm", "MatMul")),
        "all that the tools can": None,
    }
    graphs = {FP32: description.checked(files[0])}
    for number, (name, nodes) in enumerate(choices.items()):
        graphs[name] = work / f"{number}.onnx"
        quantize_static(
            prepared,
            graphs[name],
            Calibration(prepared, images),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=nodes,
        )
    return graphs


def named(path: Path, operators: Sequence[str]) -> list[str]:
    """The names of a graph's nodes of some operators."""
    return [node.name for node in onnx.load(path).graph.node if node.op_type in operators]


def pointwise(path: Path) -> list[str]:
    """The names of a graph's convolutions of 1 x 1."""
    graph = onnx.load(path).graph
    shapes = {weights.name: tuple(weights.dims) for weights in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    return [node.name for node in convolutions if shapes[node.input[1]][2:] == (1, 1)]


class Calibration(CalibrationDataReader):
    """Gives a graph's input, a batch of images at a time."""

    def __init__(self, path: Path, images: np.ndarray) -> None:
        name = onnx.load(path).graph.input[0].name
        self._batches: Iterator[dict[str, np.ndarray]] = iter(
            {name: images[start : start + CHUNK]} for start in range(0, len(images), CHUNK)
        )

    def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]
        return next(self._batches, None)


def load(path: Path) -> Network:
    """A graph in ONNX Runtime, set up as a bundle's is."""
    session = open_session(path)
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


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
