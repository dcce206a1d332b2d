"""ONNX graphs of detectors, by ONNX Runtime against the networks and the official boxes."""

from __future__ import annotations

from pathlib import Path

import mindcv
import numpy as np
import onnxruntime
import pytest
from detectors import small_detector, small_mask_rcnn
from mindspore import Tensor
from official import load_official_weights
from official_dense import DENSE, official_images

from mindcv_poolformer.data.detection.mask_pasting import paste_masks
from mindcv_poolformer.data.detection.transforms import official_test
from mindcv_poolformer.export.onnx.write import write_onnx
from mindcv_poolformer.models import MaskRCNN, RetinaNet
from mindcv_poolformer.models.deploy import to_deploy

THRESHOLD = 0.06


def session_of(network: RetinaNet | MaskRCNN, path: Path) -> onnxruntime.InferenceSession:
    write_onnx(to_deploy(network), path, official_test())
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("family", [None, "caformer"])
def test_the_graph_finds_the_networks_boxes_at_odd_sizes(
    family: str | None, tmp_path: Path, pynative_mode: None
) -> None:
    settings = {"num_classes": 3, "candidates": 60, "detections": 40, "iou_threshold": 0.3}
    network = small_detector(family, **settings).set_train(False)
    session = session_of(network, tmp_path / "any.onnx")
    for height, width, shape in ((64, 96, (64, 96)), (71, 97, (50, 97))):
        images = official_images(4, 1, 3, height, width).asnumpy()
        shapes = np.array([shape], np.int32)
        expected = [x.asnumpy() for x in network.detect(Tensor(images), Tensor(shapes))]
        found = session.run(None, {"images": images, "shapes": shapes})
        assert [x.dtype for x in found] == [np.float32, np.float32, np.int32, np.int32]
        assert expected[3][0] > 10
        for one, other, close in zip(found, expected, (1e-3, 1e-5, 0, 0), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=close)


def test_fewer_boxes_than_places(tmp_path: Path, pynative_mode: None) -> None:
    network = small_detector(num_classes=3, score_threshold=THRESHOLD, candidates=9).set_train(
        False
    )
    session = session_of(network, tmp_path / "any.onnx")
    images, shapes = official_images(0, 1, 3, 64, 64).asnumpy(), np.array([[64, 64]], np.int32)
    boxes, scores, labels, (count,) = session.run(None, {"images": images, "shapes": shapes})
    assert boxes.shape == (1, 100, 4) and 0 < count <= 45
    assert (scores[0, :count] > THRESHOLD).all()
    assert not any(x[0, count:].any() for x in (boxes, scores, labels))


@pytest.mark.long
def test_the_graph_finds_the_official_boxes(tmp_path: Path) -> None:
    network = load_official_weights(mindcv.create_model("retinanet_poolformer_s12", num_classes=80))
    session = session_of(network, tmp_path / "s12.onnx")
    values = sum(x.size for x in network.get_parameters())
    assert (tmp_path / "s12.onnx").stat().st_size < 4.1 * values  # the heads of all levels are one
    for size, seed, shape in (("128x160", 100, (117, 150)), ("100x150", 101, (100, 150))):
        official = np.load(DENSE / f"retinanet_s12_forward_{size}.npz")
        height, width = map(int, size.split("x"))
        images = official_images(seed, 1, 3, height, width).asnumpy()
        inputs = {"images": images, "shapes": np.array([shape], np.int32)}
        boxes, scores, labels, count = session.run(None, inputs)
        np.testing.assert_array_equal(count, [100])
        np.testing.assert_allclose(boxes[0], official["det.boxes"], rtol=0, atol=2e-3)
        np.testing.assert_allclose(scores[0], official["det.scores"], rtol=0, atol=1e-5)
        np.testing.assert_array_equal(labels[0], official["det.labels"])


def test_the_graph_finds_the_networks_masks_at_odd_sizes(
    tmp_path: Path, pynative_mode: None
) -> None:
    settings = {"num_classes": 3, "proposals": 90, "candidates": 60, "detections": 40}
    network = small_mask_rcnn(iou_threshold=0.3, **settings).set_train(False)
    bias = network.rpn_head.rpn_cls.bias
    bias.set_data(bias.value() - 25)  # proposals of next to no score are proposals
    session = session_of(network, tmp_path / "any.onnx")
    for height, width, shape in ((128, 160, (128, 160)), (71, 97, (50, 97))):
        images = official_images(4, 1, 3, height, width).asnumpy()
        shapes = np.array([shape], np.int32)
        expected = [x.asnumpy() for x in network.detect(Tensor(images), Tensor(shapes))]
        found = session.run(None, {"images": images, "shapes": shapes})
        (count,) = expected[3]
        assert 5 < count
        for one, other, close in zip(found, expected, (3e-3, 1e-4, 0, 0), strict=False):
            np.testing.assert_allclose(one, other, rtol=0, atol=close)
        np.testing.assert_allclose(found[4][0, :count], expected[4][0, :count], rtol=0, atol=1e-4)
        assert not found[4][0, count:].any()
    # Where no proposal has an area there is nothing to look at a second time.
    shapes = np.array([(0, 0)], np.int32)
    expected = [x.asnumpy() for x in network.detect(Tensor(images), Tensor(shapes))]
    found = session.run(None, {"images": images, "shapes": shapes})
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
    for outputs in (found, expected):
        assert not any(x.any() for x in outputs[:4])


@pytest.mark.long
def test_the_graph_finds_the_official_boxes_and_masks(tmp_path: Path) -> None:
    network = mindcv.create_model("mask_rcnn_poolformer_s12", num_classes=80)
    session = session_of(load_official_weights(network), tmp_path / "s12.onnx")
    for size, seed, shape in (("128x160", 100, (117, 150)), ("100x150", 131, (100, 150))):
        official = np.load(DENSE / f"mask_rcnn_s12_forward_{size}.npz")
        height, width = map(int, size.split("x"))
        images = official_images(seed, 1, 3, height, width).asnumpy()
        found = session.run(None, {"images": images, "shapes": np.array([shape], np.int32)})
        boxes, scores, labels, count, masks = (x[0] for x in found)
        assert count == 100
        np.testing.assert_allclose(scores, official["det.scores"], rtol=0, atol=1e-4)
        np.testing.assert_array_equal(labels, official["det.labels"])
        # As in test_mask_rcnn.py, which tells of the one that may be another.
        same = abs(boxes - official["det.boxes"]).max(1) < 5e-3
        assert same.sum() >= 99
        pixels = paste_masks(masks, boxes, tuple(official["det.mask_shape"][1:]))
        assert abs(pixels.sum((1, 2)) - official["det.mask_areas"])[same].max() <= 2
