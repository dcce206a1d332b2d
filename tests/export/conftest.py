"""A small network with weights that matter, its checkpoint, and images to classify."""

from __future__ import annotations

import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from official import load_official_weights
from PIL import Image
from toy_classifier import ToyClassifier

from mindcv_poolformer.export.bundle import Bundle, load_bundle
from mindcv_poolformer.export.choices import Choices
from mindcv_poolformer.export.mindir import Trained, write_bundle

sys.path.insert(0, str(Path(__file__).parent))  # for `checkpoints`

from checkpoints import (  # noqa: E402
    CLASSES,
    NAME,
    TRANSFORM,
    logits_of,
    make_network,
    write_checkpoint,
)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as training writes it."""
    return write_checkpoint(make_network(), NAME, tmp_path_factory.mktemp("run") / "best.ckpt")


@pytest.fixture
def trained(checkpoint: Path) -> Trained:
    return Trained(make_network(), NAME, checkpoint, TRANSFORM, CLASSES)


@pytest.fixture
def toy(checkpoint: Path) -> Trained:
    """Where the bundle is the subject and not its graph: compiles in no time.

    It has no deploy form.
    """
    network = load_official_weights(ToyClassifier()).set_train(False)
    return Trained(network, "toy", checkpoint, TRANSFORM, CLASSES)


@pytest.fixture
def toy_logits(toy: Trained, inputs: np.ndarray) -> np.ndarray:
    """The pictures' logits by the toy's formula, (5, 10)."""
    wide = inputs.astype(np.float64)
    features = np.concatenate([wide.mean((2, 3)), (wide**2).mean((2, 3))], axis=1)
    weight, bias = toy.network.head.weight.asnumpy(), toy.network.head.bias.asnumpy()
    return features @ weight.T + bias


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five PNGs of 50 x 40: the shortest edge is 32 / 0.8 already, so no resize comes in."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(1)
    paths = [folder / f"{index}.png" for index in range(5)]
    for path in paths:
        coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((50, 40), Image.Resampling.BILINEAR).save(path)
    return paths


@pytest.fixture(scope="session")
def inputs(pictures: list[Path]) -> np.ndarray:
    """The pictures as the network sees them, (5, 3, 32, 32), by slicing instead of TRANSFORM."""
    pixels = np.stack([np.asarray(Image.open(path), np.float32) for path in pictures])
    crops = pixels[:, 4:36, 9:41]
    normalised = (crops - np.float32([120, 115, 100])) / np.float32([60, 50, 55])
    return normalised.transpose(0, 3, 1, 2).copy()


@pytest.fixture(scope="session")
def expected(inputs: np.ndarray) -> np.ndarray:
    """The pictures' logits, (5, 10), by the network itself in PyNative mode."""
    return logits_of(make_network(), inputs)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, inputs: np.ndarray) -> Path:
    """A bundle of the checkpoint. Tests read it; those that change it copy it first."""
    target = tmp_path_factory.mktemp("export") / "bundle"
    trained = Trained(make_network(), NAME, checkpoint, TRANSFORM, CLASSES)
    ms.set_context(mode=ms.GRAPH_MODE)
    write_bundle(trained, target, inputs)
    return target


@pytest.fixture(scope="session")
def onnx_folder(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, inputs: np.ndarray
) -> Path:
    """As ``folder``, with an ONNX graph beside the MINDIR, written in PyNative mode."""
    target = tmp_path_factory.mktemp("onnx") / "bundle"
    trained = Trained(make_network(), NAME, checkpoint, TRANSFORM, CLASSES)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    write_bundle(trained, target, inputs, Choices(beside="ONNX"))
    assert ms.get_context("mode") == ms.PYNATIVE_MODE
    ms.set_context(mode=ms.GRAPH_MODE)
    return target


@pytest.fixture(scope="session")
def bundle(folder: Path) -> Bundle:
    return load_bundle(folder)
