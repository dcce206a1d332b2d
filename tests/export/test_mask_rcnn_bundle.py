"""A Mask R-CNN's bundle: read again, it finds the network's objects and their pixels."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from detectors import small_mask_rcnn
from mindspore import Tensor
from PIL import Image
from without_mindspore import PYTHON, without_mindspore

import mindcv_poolformer
from mindcv_poolformer.data.detection.fitting import CanvasTransform, EvalTransform
from mindcv_poolformer.data.detection.mask_pasting import PastedMasks, paste_masks
from mindcv_poolformer.data.detection.objects import Objects, colours_of
from mindcv_poolformer.export.choices import Choices
from mindcv_poolformer.export.detector import load_detector_bundle
from mindcv_poolformer.export.golden_objects import self_test_objects
from mindcv_poolformer.export.mindir import Trained, write_bundle
from mindcv_poolformer.export.object_files import told_objects
from mindcv_poolformer.runtime.errors import UserError

CLASSES = ("disc", "bar", "ring")
SIZE = (64, 64)
TRANSFORM = EvalTransform(SIZE, 32, (120.0, 115.0, 100.0), (60.0, 50.0, 55.0))
OBJECTS = Objects(colours_of(CLASSES), (7, 2, 90), 0.05, 0.3, 20, 28)

pytestmark = pytest.mark.long


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    path = tmp_path_factory.mktemp("run") / "best.ckpt"
    path.write_bytes(b"weights")
    settings = {"proposals": 60, "candidates": 60, "detections": 20, "iou_threshold": 0.3}
    network = small_mask_rcnn(num_classes=3, **settings)
    network.preprocessing, network.classes = TRANSFORM.to_dict(), CLASSES
    return Trained(network, "mask_rcnn_tiny", path, TRANSFORM, CLASSES, objects=OBJECTS)


def samples() -> tuple[np.ndarray, np.ndarray]:
    transform = CanvasTransform.of(TRANSFORM, SIZE)
    images, shapes = zip(*(transform(np.asarray(picture(90, 120, seed))) for seed in (0, 1)))
    return np.stack(images), np.array(shapes, np.int32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, trained: Trained) -> Path:
    """With an ONNX graph; the checkpoint's answer is PyNative's."""
    target = tmp_path_factory.mktemp("export") / "bundle"
    ms.set_context(mode=ms.PYNATIVE_MODE)
    write_bundle(trained, target, samples(), Choices(beside="ONNX"))
    ms.set_context(mode=ms.GRAPH_MODE)
    return target


def test_a_bundle_finds_the_networks_masks(folder: Path, trained: Trained) -> None:
    """By its ONNX graph; the MINDIR's boxes and masks were compared when it was written."""
    image = picture(90, 130, 3)
    inputs, size = CanvasTransform.of(TRANSFORM, SIZE)(np.asarray(image))
    scale = np.array([[size[1] / 130, size[0] / 90]], np.float32)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    found = trained.network.detect(Tensor(inputs[None]), Tensor([size]), Tensor(scale))
    ms.set_context(mode=ms.GRAPH_MODE)
    count = int(found[3].asnumpy()[0])
    boxes, scores, labels, _, masks = (x.asnumpy()[0] for x in found)
    expected = paste_masks(masks[:count], boxes[:count], (90, 130))
    assert count > 5 and expected.any((1, 2)).sum() > 3
    bundle = load_detector_bundle(folder, runtime="onnx")
    answer = bundle.objects_on(image, 0)
    np.testing.assert_allclose(answer.boxes, boxes[:count], rtol=0, atol=5e-3)
    np.testing.assert_allclose(answer.scores, scores[:count], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(answer.labels, labels[:count])
    assert answer.masks is not None and len(answer.masks) == count
    assert (np.asarray(answer.masks) != expected).sum((1, 2)).max() <= 2
    rows = told_objects(answer, bundle.objects.category_ids)
    assert rows[0]["segmentation"]["size"] == [90, 130]
    said = self_test_objects(bundle.graphs[SIZE])
    assert said.startswith("self test at 64 px: ")
    told = json.loads((folder / "model.json").read_text())
    assert told["outputs"][-1] == {"name": "masks", "shape": [1, 20, 28, 28], "dtype": "float32"}
    assert [proof["file_format"] for proof in told["verification"]] == ["MINDIR", "ONNX"]
    assert all(0 < proof["max_abs_difference"] <= 1e-4 for proof in told["verification"])


def test_other_masks_fail_the_self_test(folder: Path) -> None:
    graph = load_detector_bundle(folder, runtime="onnx").graphs[SIZE]

    def run(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        *others, masks = graph.network(*inputs)
        return *others, masks.transpose(0, 1, 3, 2)

    with pytest.raises(UserError, match="found objects up to 0.* off .* expected at most 0.001"):
        self_test_objects(replace(graph, network=run))


def test_the_server_tells_the_same_pixels(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("tritonclient", reason="needs the extra serving")
    from service import at_work, over_grpc
    from tritonclient.grpc import InferRequestedOutput
    from tritonclient.utils import InferenceServerException

    outputs = [InferRequestedOutput(name) for name in ("objects", "overlay")]
    parameters = {"threshold": "0.1", "top_k": 9}
    with at_work(folder, tmp_path) as service:

        def ask(image: Image.Image) -> Any:
            content = io.BytesIO()
            image.save(content, "PNG")
            tensors = [over_grpc("encoded", np.array([content.getvalue()], object), "BYTES")]
            return service.grpc.infer(
                "mask_rcnn_tiny", tensors, outputs=outputs, parameters=parameters
            )

        pictures = [picture(90, 130, 3), picture(70, 64, 5)]
        answers = [ask(one) for one in pictures]
        ribbon = "image of 500000 x 11: found 32,000,000 pixels, resized, expected at most 25,000,"
        with pytest.raises(InferenceServerException, match=ribbon):
            ask(Image.new("1", (500_000, 11)))
    bundle = load_detector_bundle(folder, runtime="onnx")
    for one, answer in zip(pictures, answers, strict=True):
        expected = bundle.objects_on(one, 0.1, 9)
        rows = json.loads(answer.as_numpy("objects")[0])
        assert rows == told_objects(expected, bundle.objects.category_ids)
        assert rows[0]["segmentation"]["size"] == [one.height, one.width]
        seen = Image.open(io.BytesIO(base64.b64decode(answer.as_numpy("overlay")[0])))
        np.testing.assert_array_equal(seen, expected.overlay(one))


def test_the_page_shows_the_same_pixels(folder: Path) -> None:
    """At the size that the browser shows."""
    from mindcv_poolformer.page.detector import load_page_detector

    image = picture(90, 130, 3)
    found = load_page_detector(folder).find(image).objects
    expected = load_detector_bundle(folder).objects_on(image, OBJECTS.score_threshold)
    assert isinstance(found.masks, PastedMasks) and expected.masks is not None
    np.testing.assert_array_equal(list(found.masks), list(expected.masks))
    twice = np.array(list(found.masks.resized((180, 260))))
    share = (twice[:, ::2, ::2] == np.array(list(expected.masks))).mean()
    assert twice.shape[1:] == (180, 260) and share > 0.98


def test_without_mindspore(folder: Path, tmp_path: Path) -> None:
    image = picture(90, 130, 3)
    image.save(tmp_path / "picture.png")
    program = (
        "import sys; from mindcv_poolformer import detect; import numpy\n"
        "found = detect('picture.png', sys.argv[1], 0)\n"
        "numpy.savez('found.npz', boxes=found.boxes, masks=found.masks)\n"
        "assert not {'mindspore', 'mindcv', 'torch', 'cv2'} & set(sys.modules)"
    )
    words = [*PYTHON, "-c", program, str(folder)]
    variables = without_mindspore(tmp_path / "packages")
    subprocess.run(words, cwd=tmp_path, check=True, env={**os.environ, **variables})
    expected = load_detector_bundle(folder, runtime="onnx").objects_on(image, 0)
    with np.load(tmp_path / "found.npz") as found:
        for name in ("boxes", "masks"):
            np.testing.assert_array_equal(found[name], getattr(expected, name))


def test_a_network_answers_as_its_bundle(folder: Path, trained: Trained) -> None:
    """64 x 64 pixels are neither resized nor filled up by either."""
    image = picture(*SIZE, 5)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    found = mindcv_poolformer.detect(image, trained.network, 0)
    ms.set_context(mode=ms.GRAPH_MODE)
    expected = load_detector_bundle(folder, runtime="onnx").objects_on(image, 0)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=5e-3)
    assert found.masks is not None and expected.masks is not None
    differ = found.masks != np.asarray(expected.masks)
    assert differ.sum((1, 2)).max() <= 2


@pytest.mark.rare
def test_half_precision(trained: Trained, tmp_path: Path) -> None:
    ms.set_context(mode=ms.PYNATIVE_MODE)
    told = write_bundle(trained, tmp_path / "half", samples(), Choices("fp16", beside="ONNX"))
    ms.set_context(mode=ms.GRAPH_MODE)
    for proof in told["verification"]:
        assert 0 < proof["max_abs_difference"] <= proof["tolerance"]
