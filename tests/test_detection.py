"""detect: the objects on a picture in one call."""

from __future__ import annotations

from pathlib import Path

import mindcv
import numpy as np
import pytest
from detectors import small_detector
from mindspore import Tensor
from PIL import Image
from pycocotools import mask as coco_mask
from toy_detector import OBJECTS, ToyDetector

import mindcv_poolformer
from mindcv_poolformer.data.detection.fitting import CanvasTransform, EvalTransform
from mindcv_poolformer.data.detection.objects import Detection, colours_of
from mindcv_poolformer.export.choices import Choices
from mindcv_poolformer.export.mindir import Trained, write_bundle
from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.weights import save_weights

CLASSES = ("disc", "bar", "ring")
TRANSFORM = EvalTransform((96, 64), 32, (120.0, 115.0, 100.0), (60.0, 50.0, 55.0))


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 x 53 pixels: fitted to 96 x 64, which is a multiple of 32 as it is."""
    path = tmp_path_factory.mktemp("pictures") / "0.png"
    coarse = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((80, 53), Image.Resampling.BILINEAR).save(path)
    return path


def test_a_network_sees_the_official_tests_picture(picture: Path, pynative_mode: None) -> None:
    network = small_detector(num_classes=3, detections=20).set_train()
    network.preprocessing, network.classes = TRANSFORM.to_dict(), CLASSES[:2]
    inputs, size = TRANSFORM(np.asarray(Image.open(picture)))
    assert inputs.shape == (3, 64, 96)
    scale = np.array([[size[1] / 80, size[0] / 53]], np.float32)
    network.set_train(False)
    boxes, scores, labels, _ = (
        x.asnumpy()[0] for x in network.detect(Tensor(inputs[None]), Tensor([size]), Tensor(scale))
    )
    network.set_train()
    threshold = float(scores[9])
    result = mindcv_poolformer.detect(picture, network, threshold)
    assert isinstance(result, Detection) and network.training and result.masks is None
    np.testing.assert_array_equal(result.labels, labels[:9])
    np.testing.assert_allclose(result.scores, scores[:9], rtol=1e-6)
    np.testing.assert_allclose(result.boxes, boxes[:9], atol=1e-3)
    assert result.classes == ("disc", "bar", "LABEL_2")
    assert result.palette == colours_of(result.classes)
    assert result.names == [result.classes[label] for label in labels[:9]]
    several = mindcv_poolformer.detect([Image.open(picture)] * 2, network, threshold)
    for one in several:
        np.testing.assert_array_equal(one.boxes, result.boxes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    path = tmp_path_factory.mktemp("run") / "best.ckpt"
    path.write_bytes(b"")
    return Trained(ToyDetector(), "toy", path, TRANSFORM, CLASSES, objects=OBJECTS)


def samples(picture: Path) -> tuple[np.ndarray, np.ndarray]:
    image, size = CanvasTransform.of(TRANSFORM, (64, 96))(np.asarray(Image.open(picture)))
    return image[None], np.array([size], np.int32)


def test_a_bundle_answers_from_its_folder(picture: Path, trained: Trained, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    write_bundle(trained, folder, samples(picture), Choices(deploy=False))
    bundle = mindcv_poolformer.load_detector(folder)
    boxes, scores, labels = bundle.detections(Image.open(picture))
    assert len(scores) == 3
    result = mindcv_poolformer.detect(picture, folder, threshold=float(scores[1]))
    assert (result.classes, result.palette) == (CLASSES, OBJECTS.palette)
    np.testing.assert_array_equal(result.boxes, boxes[:1])
    turned = Image.open(picture).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter, clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    upright = mindcv_poolformer.detect(tmp_path / "turned.png", bundle, 0)
    np.testing.assert_array_equal(upright.boxes, boxes)
    np.testing.assert_array_equal(upright.labels, labels)


@pytest.mark.long
def test_a_checkpoint_and_what_is_none(tmp_path: Path, pynative_mode: None) -> None:
    settings = {"num_classes": 3, "channels": 8, "stacked_convs": 1}
    network = mindcv.create_model("retinanet_poolformer_s12", **settings)
    network.classes = CLASSES
    save_weights(network, tmp_path / "best.ckpt")
    loaded = mindcv_poolformer.load_detector(tmp_path / "best.ckpt")
    assert loaded.classes == CLASSES and not loaded.training
    save_weights(mindcv.create_model("poolformer_s12", num_classes=3), tmp_path / "other.ckpt")
    for name, message in (
        ("other.ckpt", "other.ckpt: found weights of poolformer_s12, expected a detector's$"),
        ("nowhere", "model .*nowhere: found no such file or folder, expected"),
    ):
        with pytest.raises(UserError, match=message):
            mindcv_poolformer.detect(tmp_path / "a.png", tmp_path / name)


def test_an_overlay_has_frames_captions_and_masks() -> None:
    boxes = np.array([[20, 30, 60, 90], [100, 20, 200, 100]], np.float32)
    masks = np.zeros((2, 100, 200), bool)
    masks[0, 40:80, 30:50] = True
    found = Detection(
        boxes, np.array([0.9, 0.5]), np.array([2, 0]), CLASSES, OBJECTS.palette, masks
    )
    grey = Image.new("RGB", (200, 100), (100, 100, 100))
    drawn = np.asarray(found.overlay(grey), int)
    assert drawn.shape == (100, 200, 3) and (np.asarray(grey) == 100).all()
    for (x1, y1, x2, y2), colour in zip(boxes.astype(int), OBJECTS.palette[::-2], strict=True):
        right, lower = min(x2, 199), min(y2, 99)
        middle = (x1 + x2) // 2, (y1 + y2) // 2
        for place in ((middle[1], x1), (middle[1], right), (lower, middle[0])):
            assert tuple(drawn[place]) == colour
    assert abs(drawn[60, 40] - (177, 50, 114)).max() <= 1  # half of both
    assert tuple(drawn[60, 150]) == (100, 100, 100)
    caption = drawn[14:29, 22:60]  # above the box: white on the class's colour
    assert (caption == (255, 0, 128)).all(-1).mean() > 0.3 and (caption > 220).all(-1).sum() > 10
    plain = Detection(boxes[:0], np.zeros(0), np.zeros(0, int), CLASSES, OBJECTS.palette)
    np.testing.assert_array_equal(plain.overlay(grey), grey)


@pytest.mark.parametrize("corner", [False, True])
def test_masks_as_run_lengths_are_read_by_pycocotools(corner: bool) -> None:
    masks = np.random.default_rng(1).random((3, 5, 7)) < 0.4
    masks[:, 0, 0], masks[1], masks[2] = corner, False, True
    found = Detection(
        np.zeros((3, 4)), np.ones(3), np.zeros(3, int), CLASSES, OBJECTS.palette, masks
    )
    assert found.segmentations is not None
    for told, mask in zip(found.segmentations, masks, strict=True):
        coded = coco_mask.frPyObjects(told, *told["size"])
        np.testing.assert_array_equal(coco_mask.decode(coded), mask)
