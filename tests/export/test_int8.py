"""INT8 graphs, by ONNX and ONNX Runtime themselves, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from bundles import sign
from checkpoints import CLASSES, NAME, TRANSFORM, make_network
from PIL import Image
from without_mindspore import PYTHON, without_mindspore

from mindcv_poolformer.export.bundle import load_bundle
from mindcv_poolformer.export.choices import Choices
from mindcv_poolformer.export.golden import self_test
from mindcv_poolformer.export.int8 import Int8Images, evenly, prove_int8, write_int8
from mindcv_poolformer.export.mindir import Trained, write_bundle
from mindcv_poolformer.export.onnx.write import write_onnx
from mindcv_poolformer.export.proof import UnprovenError
from mindcv_poolformer.models.deploy import to_deploy
from mindcv_poolformer.runtime.errors import UserError

INT8 = Choices(precision="int8", beside="ONNX")


def run(path: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images})
    return found


@pytest.fixture(scope="module")
def images(pictures: list[Path], expected: np.ndarray) -> Int8Images:
    """Their labels are what the checkpoint says."""
    return Int8Images(pictures, pictures, expected.argmax(1), "val_split")


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory,
    checkpoint: Path,
    inputs: np.ndarray,
    images: Int8Images,
) -> Path:
    """A bundle with an INT8 graph."""
    target = tmp_path_factory.mktemp("int8") / "bundle"
    trained = Trained(make_network(), NAME, checkpoint, TRANSFORM, CLASSES)
    write_bundle(trained, target, inputs, INT8, int8=images)
    return target


def test_convolutions_are_int8_and_the_file_is_a_third(folder: Path, onnx_folder: Path) -> None:
    graph = onnx.load(folder / "model.onnx").graph
    made = {node.output[0]: node for node in graph.node}
    weights = {weight.name: weight for weight in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 8  # four stems, two of each block
    for node in convolutions:
        images, weight = (made[name] for name in node.input[:2])
        assert {images.op_type, weight.op_type} == {"DequantizeLinear"}
        assert made[images.input[0]].op_type == "QuantizeLinear"
        values, scales = (onnx.numpy_helper.to_array(weights[name]) for name in weight.input[:2])
        assert (values.dtype, len(scales)) == (np.int8, len(values))
        assert 60 <= np.abs(values).max() <= 64  # a CPU without VNNI adds two products in 16 bits
    sizes = [(place / "model.onnx").stat().st_size for place in (folder, onnx_folder)]
    assert sizes[0] < sizes[1] / 3


def test_what_the_bundle_tells(folder: Path, onnx_folder: Path, expected: np.ndarray) -> None:
    told = json.loads((folder / "model.json").read_text())
    mindir, golden, int8 = told["verification"]
    assert (told["precision"], mindir["tolerance"]) == ("int8", 1e-4)
    assert golden["tolerance"] == pytest.approx(0.1 * np.ptp(expected), rel=1e-4)
    assert int8 == {
        "file_format": "ONNX",
        "image_size": 32,
        "compared": "int8 with fp32",
        "images": 5,
        "top1_agreement": 1.0,
        "top1": {"fp32": 100.0, "int8": 100.0},
        "samples": "val_split",
    }
    text = (folder / "README.md").read_text()
    assert text.startswith("# poolformer_tiny, int8, deploy form\n")
    assert "convolutions are INT8" in text
    assert "INT8" not in (onnx_folder / "README.md").read_text()


def test_each_runtime_has_its_precision(
    folder: Path, inputs: np.ndarray, expected: np.ndarray
) -> None:
    bundle = load_bundle(folder, runtime="onnx")
    logits = bundle.logits(inputs)
    assert bundle.precision == "int8"
    np.testing.assert_array_equal(logits, run(folder / "model.onnx", inputs))
    assert 1e-4 < np.abs(logits - expected).max() < 0.1 * np.ptp(expected)
    assert "top-1 equal on 100%" in self_test(bundle)
    bundle = load_bundle(folder, runtime="mindspore")
    assert bundle.precision == "fp32"
    np.testing.assert_allclose(bundle.logits(inputs), expected, atol=1e-4)


def test_without_mindspore(folder: Path, tmp_path: Path, inputs: np.ndarray) -> None:
    program = (
        "import sys; from mindcv_poolformer import load_bundle; import numpy\n"
        "from mindcv_poolformer.export.golden import self_test\n"
        "bundle = load_bundle(sys.argv[1]); print(bundle.precision, self_test(bundle))\n"
        "assert not {'mindspore', 'onnx', 'onnxruntime.quantization'} & set(sys.modules)"
    )
    done = subprocess.run(
        [*PYTHON, "-c", program, str(folder)],
        env={**os.environ, **without_mindspore(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("int8 self test at 32 px: logits of 4 images")


@pytest.mark.parametrize("batch_size", [None, 4])
def test_pixels_in_and_probabilities_out(
    trained: Trained,
    tmp_path: Path,
    images: Int8Images,
    inputs: np.ndarray,
    expected: np.ndarray,
    pynative_mode: None,
    batch_size: int | None,
) -> None:
    """In batches that the images do not fill, and at two image sizes."""
    ends = {"takes": "uint8", "gives": "probabilities", "batch_size": batch_size}
    write_onnx(to_deploy(trained.network), tmp_path / "fp32.onnx", TRANSFORM, **ends)
    write_int8(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", images, TRANSFORM, (32, 48), "uint8")
    mean, std = np.float32([120, 115, 100]), np.float32([60, 50, 55])
    pixels = np.rint(inputs.transpose(0, 2, 3, 1) * std + mean).astype(np.uint8)[:4]
    logarithms = np.log(run(tmp_path / "int8.onnx", pixels))
    softmax = np.exp(expected[:4]) / np.exp(expected[:4]).sum(1, keepdims=True)
    assert np.abs(logarithms - np.log(softmax)).max() < 0.1 * np.ptp(expected)


@pytest.fixture(scope="module")
def black(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("black") / "black.png"
    Image.new("RGB", (50, 40)).save(path)
    return path


@pytest.mark.parametrize(
    ("labelled", "message"),
    [
        (
            True,
            r"found int8 with top-1 \d+.00 % on 5 images of 32 px, where fp32 has 100.00 %, ",
        ),
        (False, r"found int8 with the top-1 of fp32 on \d+.00% of 5 images of 32 px, "),
    ],
)
def test_ranges_of_black_images_are_refused(
    folder: Path,
    onnx_folder: Path,
    tmp_path: Path,
    images: Int8Images,
    black: Path,
    labelled: bool,
    message: str,
) -> None:
    shutil.copytree(folder, tmp_path / "bundle")
    fp32, target = onnx_folder / "model.onnx", tmp_path / "bundle" / "model.onnx"
    images = dataclasses.replace(
        images, calibration=[black], labels=images.labels if labelled else None
    )
    write_int8(fp32, target, images, TRANSFORM, (32,), "float32")
    sign(tmp_path / "bundle", "model.onnx")
    with pytest.raises(UnprovenError, match=message) as caught:
        prove_int8(tmp_path / "bundle", fp32, images)
    assert "\n" not in str(caught.value)


def test_nothing_is_kept_of_what_is_refused(
    trained: Trained, tmp_path: Path, inputs: np.ndarray, images: Int8Images, black: Path
) -> None:
    images = dataclasses.replace(images, calibration=[black])
    with pytest.raises(UnprovenError, match="; nothing is kept$"):
        write_bundle(trained, tmp_path / "bundle", inputs, INT8, int8=images)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beside": None}, "found int8 with file_format MINDIR, expected ONNX"),
        ({"beside": "AIR"}, "found int8 with file_format AIR, expected ONNX"),
        ({"deploy": False}, "deploy: found false with file_format ONNX"),
    ],
)
def test_int8_is_of_the_onnx_graph(changes: Mapping[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(INT8, **changes).check()


def test_int8_is_of_classifiers() -> None:
    with pytest.raises(UserError, match="found int8 with a segmentation model, expected fp32 or"):
        INT8.check_for_segmenter()
    with pytest.raises(UserError, match="found int8 with a detection model, expected fp32 or"):
        INT8.for_detector()


@pytest.mark.parametrize(
    ("count", "most", "places"), [(3, 5, [0, 1, 2]), (9, 3, [0, 4, 8]), (1, 1, [0])]
)
def test_evenly(count: int, most: int, places: list[int]) -> None:
    assert evenly(count, most).tolist() == places
