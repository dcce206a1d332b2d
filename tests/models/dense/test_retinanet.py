"""RetinaNet against the official one's numbers, see ``official.py``."""

from __future__ import annotations

from typing import Any

import mindcv
import mindspore as ms
import numpy as np
import pytest
from detectors import small_detector
from mindspore import Tensor, nn
from official import load_official_weights, official_name, without_values
from official_dense import (
    DENSE,
    DETECTOR_SHAPES,
    check_channels,
    check_gradients,
    check_map,
    official_images,
    padded,
)

from mindcv_poolformer.models import DETECTORS, POOLFORMERS, RetinaNet, find_variant
from mindcv_poolformer.models.dense import RetinaNetLoss
from mindcv_poolformer.models.variants import find_segmenter
from mindcv_poolformer.runtime.errors import UserError

# Seed, height and width of the images, and what of them is no padding.
SIZES = {"128x160": (100, 128, 160, (117, 150)), "100x150": (101, 100, 150, (100, 150))}
UNUSED = "backbone.norm0."  # RetinaNet has no use for the first map, nor for its norm


def official_network() -> RetinaNet:
    return load_official_weights(without_values("retinanet_poolformer_s12", num_classes=80))


@pytest.mark.parametrize("name", ["retinanet_poolformer_s12", "retinanet_poolformer_s36"])
def test_parameters_are_the_official_ones(name: str) -> None:
    shapes = {n: s for n, s in DETECTOR_SHAPES[name].items() if not n.startswith(UNUSED)}
    network = without_values(name, num_classes=80)
    assert {official_name(p.name): list(p.shape) for p in network.get_parameters()} == shapes


@pytest.mark.long
@pytest.mark.layout
@pytest.mark.parametrize("size", SIZES)
def test_maps_and_boxes_are_the_official_ones(size: str, pynative_mode: None) -> None:
    official = np.load(DENSE / f"retinanet_s12_forward_{size}.npz")
    seed, height, width, shape = SIZES[size]
    network = official_network().set_train(False)
    images = official_images(seed, 1, 3, height, width)
    maps = network.backbone.feature_maps(images)
    for number, x in enumerate(maps, 3):
        check_map(official, f"c{number}", 8, x)
    for number, x in enumerate(network.neck(maps)):
        check_map(official, f"p{number}", 16, x)
    logits, deltas = network(images)
    for number, (logit, delta) in enumerate(zip(logits, deltas, strict=True)):
        check_channels(official, f"cls{number}", 24, logit.asnumpy())
        check_channels(official, f"reg{number}", 1, delta.asnumpy())
    check_boxes(official, "det", network.select(logits, deltas, Tensor([shape])))
    scale = Tensor(np.full((1, 2), 0.64, np.float32))
    check_boxes(official, "det_rescaled", network.select(logits, deltas, Tensor([shape]), scale))


def check_boxes(official: Any, name: str, found: tuple[Tensor, ...]) -> None:
    boxes, scores, labels, count = (x.asnumpy() for x in found)
    np.testing.assert_array_equal(count, [100])
    np.testing.assert_allclose(boxes[0], official[f"{name}.boxes"], rtol=0, atol=2e-3)
    np.testing.assert_allclose(scores[0], official[f"{name}.scores"], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(labels[0], official[f"{name}.labels"])


class Detection(nn.Cell):
    def __init__(self, network: RetinaNet) -> None:
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, images: Tensor, shapes: Tensor) -> tuple[Tensor, ...]:
        logits, deltas = self.network(images)
        return self.network.select(logits, deltas, shapes)


@pytest.mark.rare  # two minutes
def test_a_graph_finds_the_official_boxes() -> None:
    official = np.load(DENSE / "retinanet_s12_forward_128x160.npz")
    images, shapes = official_images(100, 1, 3, 128, 160), Tensor([(117, 150)])
    network = Detection(official_network()).set_train(False)
    check_boxes(official, "det", network(images, shapes))


@pytest.mark.long
@pytest.mark.layout
def test_losses_and_gradients_are_the_official_ones(pynative_mode: None) -> None:
    check_training()


@pytest.mark.rare  # a minute; test_dense_graphs.py has a small one
def test_losses_and_gradients_of_a_graph_are_the_official_ones() -> None:
    check_training()


def check_training() -> None:
    official = np.load(DENSE / "retinanet_s12_train_128x160.npz")
    network, loss = official_network().set_train(), RetinaNetLoss(80)
    boxes, labels = padded(official, images=2, length=5)
    shapes = Tensor([(128, 160), (128, 160)])

    def forward(images: Tensor, boxes: Tensor, labels: Tensor, shapes: Tensor) -> tuple:
        logits, deltas = network(images)
        of_classes, of_boxes = loss(logits, deltas, boxes, labels, shapes)
        return of_classes.sum() + of_boxes.sum(), of_classes, of_boxes

    inputs = (official_images(110, 2, 3, 128, 160), boxes, labels, shapes)
    _, *found = check_gradients(official, forward, network.trainable_params(), inputs, UNUSED)
    for values, name in zip(found, ("loss_cls", "loss_bbox"), strict=True):
        np.testing.assert_allclose(values.asnumpy(), official[f"{name}_per_level"], rtol=2e-5)


@pytest.mark.layout
def test_targets_are_the_official_ones(pynative_mode: None) -> None:
    official = np.load(DENSE / "retinanet_s12_train_128x160.npz")
    sizes = ((16, 20), (8, 10), (4, 5), (2, 3), (1, 2))
    boxes, labels = padded(official, images=2, length=5)
    shapes = Tensor([(128, 160), (128, 160)])
    found = RetinaNetLoss(80).targets(sizes, boxes, labels, shapes)
    classes, deltas, fg = (x.asnumpy() for x in found)
    np.testing.assert_array_equal(classes != -2, official["target_label_weights"])
    np.testing.assert_array_equal(np.where(classes == -2, 80, classes), official["target_labels"])
    np.testing.assert_array_equal(fg, official["target_fg"])
    np.testing.assert_allclose(deltas[fg], official["target_deltas_of_fg"], rtol=0, atol=2e-6)
    assert not deltas[~fg].any()
    assert [fg.sum(), (classes == 80).sum()] == [*official["num_total_pos_neg"]]


@pytest.mark.layout
@pytest.mark.parametrize("family", [None, "caformer"])
def test_images_of_a_batch_are_apart(family: str | None, pynative_mode: None) -> None:
    network = small_detector(family, num_classes=3, detections=20, candidates=50)
    images, shapes = official_images(0, 2, 3, 70, 90), Tensor([(70, 90), (50, 61)])
    scales = Tensor(np.array([[1.0, 1.0], [0.5, 2.0]], np.float32))
    both = [x.asnumpy() for x in network.set_train(False).detect(images, shapes, scales)]
    for i in range(2):
        part = slice(i, i + 1)
        alone = network.detect(images[part], shapes[part], scales[part])
        for together, x in zip(both, alone, strict=True):
            np.testing.assert_allclose(together[part], x.asnumpy(), rtol=1e-4, atol=1e-4)
    assert both[3][1] > 0
    assert both[0][1].max(0)[2] <= 61 / 0.5 and both[0][1].max(0)[3] <= 50 / 2


@pytest.mark.layout
def test_places_without_a_box_are_empty(pynative_mode: None) -> None:
    network = small_detector(num_classes=2, detections=1000, candidates=7, score_threshold=0.06)
    images = official_images(0, 1, 3, 64, 64)
    found = network.set_train(False).detect(images, Tensor([(64, 64)]))
    boxes, scores, labels, (count,) = (x.asnumpy() for x in found)
    assert boxes.shape == (1, 1000, 4) and 0 < count <= 35
    assert (scores[0, :count] > 0.06).all() and (np.diff(scores[0]) <= 0).all()
    assert not any(x[0, count:].any() for x in (boxes, scores, labels))
    assert len(np.unique(labels[0, :count])) == 2


def test_without_objects_all_is_background(pynative_mode: None) -> None:
    loss, rng = RetinaNetLoss(3), np.random.default_rng(0)
    maps = [(8, 8), (4, 4), (2, 2), (1, 1), (1, 1)]
    logits = [Tensor(rng.standard_normal((1, 27, *size)).astype(np.float32)) for size in maps]
    deltas = [Tensor(rng.standard_normal((1, 36, *size)).astype(np.float32)) for size in maps]
    boxes, labels = Tensor(np.zeros((1, 2, 4), np.float32)), Tensor(np.full((1, 2), -1))
    of_classes, of_boxes = loss(logits, deltas, boxes, labels, Tensor([(40, 64)]))
    for number, (x, stride) in enumerate(zip(logits, (8, 16, 32, 64, 128), strict=True)):
        # The rows of 40 pixels' height alone; the divisor is 1.
        p = 1 / (1 + np.exp(-x.asnumpy()[:, :, : -(-40 // stride)].astype(np.float64)))
        expected = (-0.75 * p**2 * np.log(1 - p)).sum()
        assert float(of_classes[number]) == pytest.approx(expected, rel=1e-5)
    assert not of_boxes.asnumpy().any()


def test_initial_values_are_the_official_ones() -> None:
    ms.set_seed(1)
    network = mindcv.create_model("retinanet_poolformer_s12", num_classes=80)
    values = {p.name: p.asnumpy() for p in network.get_parameters()}
    head = {n: v for n, v in values.items() if n.startswith("bbox_head.")}
    assert len(head) == 20
    for name, value in head.items():
        if name.endswith("weight"):
            assert value.std() == pytest.approx(0.01, rel=0.03) and abs(value.mean()) < 1e-4, name
        else:
            expected = -np.log(99) if name == "bbox_head.retina_cls.bias" else 0
            np.testing.assert_allclose(value, expected, rtol=1e-6)
    coarser = values["neck.fpn_convs.3.conv.weight"]
    bound = np.sqrt(6 / (9 * (512 + 256)))
    assert abs(coarser).max() <= np.float32(bound) and coarser.std() == pytest.approx(
        bound / 3**0.5, rel=0.02
    )
    assert not values["neck.fpn_convs.4.conv.bias"].any()


def test_a_backbone_gives_the_last_three_maps() -> None:
    with pytest.raises(ValueError, match="^backbone: found a classifier"):
        RetinaNet(without_values("poolformer_s12"))
    four = without_values("poolformer_s12", features_only=True)
    with pytest.raises(ValueError, match=r"found out_indices \(0, 1, 2, 3\), expected \(1, 2, 3\)"):
        RetinaNet(four)


def test_the_registry_has_the_detectors_apart() -> None:
    listed = {*mindcv.list_models("retinanet_*"), *mindcv.list_models("mask_rcnn_*")}
    assert listed == set(DETECTORS)
    assert {d.backbone for d in DETECTORS.values()} < set(POOLFORMERS)
    assert (
        mindcv.create_model("retinanet_poolformer_s12", num_classes=2, channels=8).num_classes == 2
    )
    for find in (find_variant, find_segmenter):
        with pytest.raises(UserError, match="^model: found 'retinanet_poolformer_s12', a detector"):
            find("retinanet_poolformer_s12")
