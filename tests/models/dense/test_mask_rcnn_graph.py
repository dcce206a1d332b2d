"""A Mask R-CNN's training step as one compiled graph."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops
from official import load_official_weights
from small_network import DEPTHS, DIMS

from mindcv_poolformer.models import MaskRCNN, PoolFormer
from mindcv_poolformer.models.dense import MaskRCNNLoss

SIZE, CLASSES = 64, 3


def batch(network: MaskRCNN) -> tuple[Tensor, ...]:
    """Two images, of one and of three objects, which are boxes filled with ones; and draws."""
    rng = np.random.default_rng(5)
    boxes = np.zeros((2, 3, 4), np.float32)
    # Not quite of an anchor's form: where anchors have equal IoUs, rounding tells which is best,
    # and what is fused rounds otherwise.
    boxes[0, 0] = 4.3, 8.6, 35.0, 41.7
    boxes[1] = (2.2, 3.4, 26.5, 46.9), (18.7, 38.3, 62.6, 62.2), (28.1, 5.2, 60.2, 35.9)
    labels = np.array([[1, -1, -1], [0, 2, 1]], np.int32)
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


@pytest.mark.long
def test_the_graph_has_the_gradients_of_its_operators(graph_mode: None) -> None:
    backbone = PoolFormer(DEPTHS, DIMS, features_only=True)
    network = load_official_weights(MaskRCNN(backbone, num_classes=CLASSES, channels=8))
    loss = MaskRCNNLoss(network, anchors=32, proposals=16).set_train()
    inputs, weights = batch(network), network.trainable_params()

    def forward(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        objectness, first_boxes, classes, second_boxes, masks = loss(*inputs)
        parts = ops.stack((objectness.sum(), first_boxes.sum(), classes, second_boxes, masks))
        return parts.sum(), parts

    found = []
    for mode in (ms.GRAPH_MODE, ms.PYNATIVE_MODE):
        ms.set_context(mode=mode)
        (_, parts), gradients = ms.value_and_grad(forward, None, weights, has_aux=True)(*inputs)
        found.append([parts.asnumpy(), *(gradient.asnumpy() for gradient in gradients)])
    assert (found[1][0] > 0).all()  # each part takes part
    for name, graph, operators in zip(
        ["losses", *(weight.name for weight in weights)], *found, strict=True
    ):
        # Of norm1.beta nothing is left behind the pooling but rounding.
        off = 1e-4 * np.abs(operators).max() + 1e-6
        np.testing.assert_allclose(graph, operators, rtol=0, atol=off, err_msg=name)
