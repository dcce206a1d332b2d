"""A detector's bundle: read again, it finds the network's objects."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import mindspore as ms
import numpy as np
import pytest
from bundles import redescribe
from detectors import small_detector
from mindspore import Tensor
from PIL import Image
from toy_detector import OBJECTS, SHARES, ToyDetector
from without_mindspore import PYTHON, without_mindspore

from mindcv_poolformer.data.detection.fitting import CanvasTransform, EvalTransform
from mindcv_poolformer.data.detection.objects import Objects
from mindcv_poolformer.export.bundle import load_bundle
from mindcv_poolformer.export.choices import Choices
from mindcv_poolformer.export.description import read_description
from mindcv_poolformer.export.detector import load_detector_bundle
from mindcv_poolformer.export.golden_objects import self_test_objects
from mindcv_poolformer.export.mindir import Trained, write_bundle
from mindcv_poolformer.export.runtimes import Taken
from mindcv_poolformer.runtime.errors import UserError

NAME = "retinanet_poolformer_tiny"
CLASSES = ("disc", "bar", "ring")
MEAN, STD = (120.0, 115.0, 100.0), (60.0, 50.0, 55.0)
TRANSFORM = EvalTransform((96, 64), 32, MEAN, STD)
SIZES = ((64, 96), (96, 64))


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)


def samples(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    transform = CanvasTransform.of(TRANSFORM, size)
    images, shapes = zip(*(transform(np.asarray(picture(90, 120, seed))) for seed in (0, 1)))
    return np.stack(images), np.array(shapes, np.int32)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    path = tmp_path_factory.mktemp("run") / "best.ckpt"
    path.write_bytes(b"weights")
    return Trained(ToyDetector(), "toy", path, TRANSFORM, CLASSES, objects=OBJECTS)


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory: pytest.TempPathFactory, toy: Trained) -> Path:
    target = tmp_path_factory.mktemp("toy") / "bundle"
    first, *further = map(samples, SIZES)
    write_bundle(toy, target, first, Choices(deploy=False), further=further, origin="here")
    return target


def test_the_description_tells_all_of_it(toy_folder: Path) -> None:
    told = json.loads((toy_folder / "model.json").read_text())
    assert told["task"] == "detection" and told["classes"] == list(CLASSES)
    assert Objects.from_dict(tuple(map(tuple, told["palette"])), told["objects"]) == OBJECTS
    assert EvalTransform.from_dict(told["preprocessing"]) == TRANSFORM
    assert [end["name"] for end in told["inputs"]] == ["images", "shapes"]
    assert told["outputs"][0] == {"name": "boxes", "shape": [1, 4, 4], "dtype": "float32"}
    assert [end["name"] for end in told["outputs"]] == ["boxes", "scores", "labels", "count"]
    assert told["graphs"] == {
        "model.mindir": {"batch_size": 1, "image_size": [64, 96]},
        "model_96x64px_b1.mindir": {"batch_size": 1, "image_size": [96, 64]},
    }
    for proof in told["verification"]:
        assert proof["max_abs_difference"] <= proof["tolerance"]
        assert (proof["objects"], proof["images"]) == (6, 2)
    readme = (toy_folder / "README.md").read_text()
    assert "One picture at a time. Images of 64x96, 96x64 px (height x width)" in readme
    assert "| output | count | int32 | 1 |" in readme
    assert "max_batch_size" not in json.loads((toy_folder / "model-settings.json").read_text())


@pytest.mark.parametrize(
    ("shape", "size", "fitted"),
    [
        ((50, 81), (64, 96), (59, 96)),
        ((200, 150), (96, 64), (85, 64)),
        ((20, 100), (64, 96), (19, 96)),
    ],
)
def test_a_picture_goes_to_the_graph_of_its_shape(
    toy_folder: Path, shape: tuple[int, int], size: tuple[int, int], fitted: tuple[int, int]
) -> None:
    bundle = load_detector_bundle(toy_folder)
    image = picture(*shape)
    boxes, scores, labels = bundle.detections(image)
    # By the toy's formula: the filling counts in the mean, the boxes are shares of the picture.
    resized = np.asarray(image.resize(fitted[::-1], Image.Resampling.BILINEAR), np.float64)
    means = ((resized - MEAN) / STD).sum((0, 1)) / (size[0] * size[1])
    expected = 1 / (1 + np.exp(-means))
    order = np.argsort(-expected)
    np.testing.assert_array_equal(labels, order)
    np.testing.assert_allclose(scores, expected[order], atol=0.01)
    np.testing.assert_allclose(boxes, SHARES[order] * (shape[::-1] * 2), rtol=1e-5)
    assert bundle.classes == CLASSES and bundle.objects == OBJECTS


def test_the_self_test_is_of_every_size(toy_folder: Path) -> None:
    bundle = load_detector_bundle(toy_folder)
    for size, shown in (((64, 96), "64x96"), ((96, 64), "96x64")):
        said = self_test_objects(bundle.graphs[size])
        assert said.startswith(f"self test at {shown} px: 3 objects on 1 image, in MindSpore")
    alone = load_detector_bundle(toy_folder, image_size=(96, 64))
    assert list(alone.graphs) == [(96, 64)]


def test_other_boxes_fail_the_self_test(toy_folder: Path) -> None:
    graph = load_detector_bundle(toy_folder).graphs[64, 96]

    def run(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        boxes, *others = graph.network(*inputs)
        return boxes * 1.01, *others

    with pytest.raises(UserError, match="found objects up to 0.0.* off .* expected at most 0.001"):
        self_test_objects(dataclasses.replace(graph, network=run))
    darker = CanvasTransform.of(dataclasses.replace(TRANSFORM, mean=(0.0, 0.0, 0.0)), (64, 96))
    with pytest.raises(UserError, match="the preprocessing is another"):
        self_test_objects(dataclasses.replace(graph, transform=darker))


@pytest.fixture(scope="module")
def trained(toy: Trained) -> Trained:
    network = small_detector(num_classes=3, candidates=300, detections=40)
    objects = dataclasses.replace(OBJECTS, detections=40)
    return dataclasses.replace(toy, network=network, model=NAME, objects=objects)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, trained: Trained) -> Path:
    """Of one size, with an ONNX graph; the checkpoint's candidates are PyNative's."""
    target = tmp_path_factory.mktemp("export") / "bundle"
    ms.set_context(mode=ms.PYNATIVE_MODE)
    write_bundle(trained, target, samples((64, 96)), Choices(beside="ONNX"))
    ms.set_context(mode=ms.GRAPH_MODE)
    return target


@pytest.mark.long
def test_both_graphs_find_the_networks_objects(folder: Path, trained: Trained) -> None:
    image = picture(90, 130, 3)  # fitted to 64 x 92
    transform = CanvasTransform.of(TRANSFORM, (64, 96))
    inputs, size = transform(np.asarray(image))
    scale = np.array([[size[1] / 130, size[0] / 90]], np.float32)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    found = trained.network.detect(Tensor(inputs[None]), Tensor([size]), Tensor(scale))
    expected = [x.asnumpy()[0, :40] for x in found[:3]]
    assert found[3].asnumpy()[0] == 40
    for runtime in get_args(Taken):
        answer = load_detector_bundle(folder, runtime=runtime).detections(image)
        for one, other, close in zip(answer, expected, (2e-3, 1e-5, 0), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=close)
    told = json.loads((folder / "model.json").read_text())
    assert [proof["file_format"] for proof in told["verification"]] == ["MINDIR", "ONNX"]
    for proof in told["verification"]:
        assert 0 < proof["max_abs_difference"] <= 1e-4 and proof["objects"] == 80


@pytest.mark.long
def test_without_mindspore(folder: Path, tmp_path: Path) -> None:
    """The very same objects, though the picture is resized by NumPy there."""
    image = picture(90, 130, 3)
    image.save(tmp_path / "picture.png")
    program = (
        "import sys; from mindcv_poolformer import detect; import numpy\n"
        "found = detect('picture.png', sys.argv[1])\n"
        "numpy.savez('found.npz', boxes=found.boxes, scores=found.scores, labels=found.labels)\n"
        "assert not {'mindspore', 'mindcv', 'torch', 'cv2'} & set(sys.modules)"
    )
    words = [*PYTHON, "-c", program, str(folder)]
    variables = without_mindspore(tmp_path / "packages")
    subprocess.run(words, cwd=tmp_path, check=True, env={**os.environ, **variables})
    expected = load_detector_bundle(folder, runtime="onnx").objects_on(image)
    with np.load(tmp_path / "found.npz") as found:
        assert len(found["scores"]) > 0
        for name in ("boxes", "scores", "labels"):
            np.testing.assert_array_equal(found[name], getattr(expected, name))


@pytest.mark.long
def test_half_precision_under_a_key(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(bytes(16))
    choices = Choices(precision="fp16", key_file=str(tmp_path / "key"))
    described = write_bundle(trained, tmp_path / "out", samples((64, 96)), choices)
    assert 1e-5 < described["verification"][0]["max_abs_difference"] < 0.02
    with pytest.raises(UserError, match="encrypted .* expected --dec_key_file"):
        load_detector_bundle(tmp_path / "out")


def test_what_is_refused(toy_folder: Path, toy: Trained) -> None:
    with pytest.raises(UserError, match="found one of toy, a detector, expected a classifier"):
        load_bundle(toy_folder)
    for choices, message in (
        (Choices(gives="probabilities"), "^output: found probabilities with a detection model"),
        (Choices(takes="uint8"), "^input: found uint8 with .*, expected float32: pictures are fil"),
        (Choices(batch_sizes=(1, 8)), "^export_batch_size: found 1 8 with .*, expected 1: its"),
        (Choices(beside="AIR"), "^file_format: found AIR with a detection model, expected ONNX"),
    ):
        with pytest.raises(UserError, match=message):
            write_bundle(toy, toy_folder / "x", samples((64, 96)), choices)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda told: told["palette"].pop(), "palette: expected red, green and blue"),
        (lambda told: told.pop("objects"), "found no key 'objects'"),
        (lambda told: told["objects"].pop("detections"), "found no key 'detections'"),
        (lambda told: told["objects"].update(iou_threshold="a"), "found a malformed value"),
        (lambda told: told["objects"]["category_ids"].pop(), "category_ids: expected a number for"),
        (lambda told: told["preprocessing"].pop("mean"), "preprocessing has the keys"),
    ],
)
def test_a_damaged_description(
    toy_folder: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    shutil.copytree(toy_folder, tmp_path / "copy")
    redescribe(tmp_path / "copy", change)
    with pytest.raises(UserError, match=message) as caught:
        read_description(tmp_path / "copy")
    assert "\n" not in str(caught.value)


def test_a_graph_of_other_places_is_refused(toy_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_folder, tmp_path / "copy")
    redescribe(tmp_path / "copy", lambda told: told["objects"].update(detections=5))
    with pytest.raises(UserError, match=r"found a graph of .* \(1, 4, 4\) .* \(1, 5, 4\)"):
        load_detector_bundle(tmp_path / "copy")
