"""A bundle, images in files, what predict.py says of them, and a server of the bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import mindspore as ms
import numpy as np
import pytest
from official import load_official_weights
from PIL import Image
from scripts import NO_KERNELS, ROOT
from small_network import SMALL, small

from mindcv_poolformer.export.choices import Choices
from mindcv_poolformer.export.mindir import Trained, write_bundle

if TYPE_CHECKING:
    from service import Service


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with an ONNX graph. Tests read it; those that change it copy it first."""
    from service import CLASSES, TRANSFORM

    folder = tmp_path_factory.mktemp("served")
    network = load_official_weights(small(num_classes=10))
    ms.save_checkpoint(network, str(folder / "best.ckpt"))
    noise = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), dtype=np.uint8)
    samples = np.stack([TRANSFORM(Image.fromarray(pixels)) for pixels in noise])
    trained = Trained(network.set_train(False), SMALL, folder / "best.ckpt", TRANSFORM, CLASSES)
    ms.set_context(mode=ms.PYNATIVE_MODE)  # the checkpoint's answer, without compiling it
    write_bundle(trained, folder / "bundle", samples, Choices(beside="ONNX"))
    ms.set_context(mode=ms.GRAPH_MODE)
    return folder / "bundle"


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """JPEG and PNG; colour, grey and transparent; wide, high and small."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(1)
    kinds = [("RGB", (90, 60), "jpg"), ("L", (40, 77), "png"), ("RGBA", (33, 33), "png")]
    kinds += [("RGB", (20, 31), "jpg"), ("CMYK", (50, 50), "jpg"), ("RGB", (64, 64), "png")]
    paths = []
    for number, (mode, size, suffix) in enumerate(kinds):
        shape = (5, 5) if mode == "L" else (5, 5, len(mode))
        image = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode)
        paths.append(folder / f"{number}.{suffix}")
        image.resize(size, Image.Resampling.NEAREST).save(paths[-1])
    return paths


@pytest.fixture(scope="session")
def predicted(served: Path, photos: list[Path]) -> np.ndarray:
    """Probabilities of each photo by predict.py, (photos, classes)."""
    words = [sys.executable, str(ROOT / "predict.py"), *map(str, photos), "--bundle", str(served)]
    done = subprocess.run(
        [*words, "--json", "--top_k", "10"],
        capture_output=True,
        text=True,
        timeout=200,
        env=NO_KERNELS,
    )
    assert done.returncode == 0, done.stderr
    rows = np.zeros((len(photos), 10))
    for row, result in zip(rows, json.loads(done.stdout), strict=True):
        for one in result["predictions"]:
            row[one["index"]] = one["probability"]
    return rows


@pytest.fixture(scope="session")
def service(served: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server for the tests that leave it as it was."""
    from service import at_work

    with at_work(
        served, tmp_path_factory.mktemp("service"), "--max_request_bytes", "2000000"
    ) as one:
        yield one
