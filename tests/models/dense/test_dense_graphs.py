"""What small networks of dense prediction are trained by, as compiled graphs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from detectors import small_detector, small_mask_rcnn
from gradients import in_both_modes
from mindspore import Parameter, Tensor, ops
from official_dense import official_images
from segmenters import small_segmenter

from mindcv_poolformer.models import MaskRCNN
from mindcv_poolformer.models.dense import (
    MaskRCNNLoss,
    RetinaNetLoss,
    SegmentationLoss,
    roi_align,
)

pytestmark = pytest.mark.long
SIZE, CLASSES, DEPTHS = 64, 3, (1, 0, 0, 1)


def boxes_and_labels() -> tuple[np.ndarray, np.ndarray]:
    """Of one and of three objects, (2, 3, 4) and (2, 3)."""
    boxes = np.zeros((2, 3, 4), np.float32)
    # Not quite of an anchor's form: where anchors have equal IoUs, rounding tells which is best,
    # and what is fused rounds otherwise.
    boxes[0, 0] = 4.3, 8.6, 35.0, 41.7
    boxes[1] = (2.2, 3.4, 26.5, 46.9), (18.7, 38.3, 62.6, 62.2), (28.1, 5.2, 60.2, 35.9)
    return boxes, np.array([[1, -1, -1], [0, 2, 1]], np.int32)


def batch(network: MaskRCNN) -> tuple[Tensor, ...]:
    """Two images, whose objects are boxes filled with ones; and draws."""
    rng = np.random.default_rng(5)
    boxes, labels = boxes_and_labels()
    masks = np.zeros((2, 3, SIZE, SIZE), np.uint8)
    for image, which in np.argwhere(labels >= 0):
        left, top, right, bottom = boxes[image, which].astype(int)
        masks[image, which, top:bottom, left:right] = 1
    sizes = tuple((SIZE // stride, SIZE // stride) for stride in (4, 8, 16, 32, 64))
    anchors = sum(network.anchors.counts(sizes))
    shapes = np.full((2, 2), SIZE, np.int32)
    images = rng.standard_normal((2, 3, SIZE, SIZE)).astype(np.float32)
    draws = (rng.random((2, count), np.float32) for count in (anchors, 3 + 1000))
    return tuple(map(Tensor, (images, boxes, labels, masks, shapes, shapes, *draws)))


def check(
    found: Sequence[np.ndarray], expected: Sequence[np.ndarray], weights: Sequence[Parameter]
) -> None:
    names = [weight.name for weight in weights]
    names = [f"value {i}" for i in range(len(found) - len(names))] + names
    for name, graph, operators in zip(names, found, expected, strict=True):
        # Of norm1.beta nothing is left behind the pooling but rounding.
        off = 1e-4 * np.abs(operators).max() + 1e-6
        np.testing.assert_allclose(graph, operators, rtol=0, atol=off, err_msg=name)


def test_a_mask_rcnn_has_the_gradients_of_its_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    # In two parts: on the finest level 9 of an image's 16 boxes, and 4 of 8 masks to crop, at once.
    monkeypatch.setattr(roi_align, "MOST", 2**16)
    network = small_mask_rcnn(num_classes=CLASSES, depths=DEPTHS, channels=32)
    loss = MaskRCNNLoss(network, anchors=32, proposals=16).set_train()
    weights = network.trainable_params()

    def forward(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        objectness, first_boxes, classes, second_boxes, masks = loss(*inputs)
        parts = ops.stack((objectness.sum(), first_boxes.sum(), classes, second_boxes, masks))
        return parts.sum(), parts

    of_graph, of_operators = in_both_modes(forward, weights, *batch(network))
    assert (of_operators[1] > 0).all()  # each part takes part
    check(of_graph, of_operators, weights)


def test_a_retinanet_has_the_gradients_of_its_operators() -> None:
    network = small_detector(num_classes=CLASSES, depths=DEPTHS, stacked_convs=1).set_train()
    loss, weights = RetinaNetLoss(CLASSES), network.trainable_params()
    shapes = Tensor(np.full((2, 2), SIZE, np.int32))

    def forward(images: Tensor, boxes: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        logits, deltas = network(images)
        of_classes, of_boxes = loss(logits, deltas, boxes, labels, shapes)
        return of_classes.sum() + of_boxes.sum(), of_classes, of_boxes

    inputs = official_images(5, 2, 3, SIZE, SIZE), *map(Tensor, boxes_and_labels())
    of_graph, of_operators = in_both_modes(forward, weights, *inputs)
    assert (of_operators[1] > 0).all() and of_operators[2].any()
    check(of_graph, of_operators, weights)


def test_a_segmenter_has_the_gradients_of_its_operators() -> None:
    network = small_segmenter(num_classes=CLASSES).set_train()
    loss, weights = SegmentationLoss(255), network.trainable_params()
    labels = np.random.default_rng(1).choice([0, 1, 2, 255], (2, 34, 47))

    def forward(images: Tensor, labels: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        logits = network(images, scale)
        return loss(logits, labels), logits

    inputs = official_images(5, 2, 3, 34, 47), Tensor(labels), Tensor(np.ones((2, 12), np.float32))
    of_graph, of_operators = in_both_modes(forward, weights, *inputs)
    check(of_graph, of_operators, weights)
