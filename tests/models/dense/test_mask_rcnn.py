"""Mask R-CNN against the official one's numbers, see ``official.py``."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import mindcv
import numpy as np
import pytest
from detectors import small_mask_rcnn
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
from op_by_op import op_by_op

from mindcv_poolformer.data.detection.mask_pasting import paste_masks
from mindcv_poolformer.models import MaskRCNN
from mindcv_poolformer.models.dense import MaskRCNNLoss
from mindcv_poolformer.models.dense.box_coding import OF_PROPOSALS, encode
from mindcv_poolformer.models.dense.mask_rcnn_heads import BOX_SIZE, MASK_SIZE, values_within
from mindcv_poolformer.models.dense.roi_align import level_of
from mindcv_poolformer.models.parts.layout import from_channels_first, to_channels_first
from mindcv_poolformer.runtime.amp import mixed_precision

# Seed, height and width of the images, and what of them is no padding.
SIZES = {"128x160": (100, 128, 160, (117, 150)), "100x150": (131, 100, 150, (100, 150))}
LENGTH, SAMPLED = 5, 64  # of the true boxes, filled up, and proposals of each image


def official_network() -> MaskRCNN:
    return load_official_weights(without_values("mask_rcnn_poolformer_s12", num_classes=80))


@lru_cache
def official_forward(size: str) -> Any:
    return np.load(DENSE / f"mask_rcnn_s12_forward_{size}.npz")


@lru_cache
def official_training() -> dict[str, np.ndarray]:
    return dict(np.load(DENSE / "mask_rcnn_s12_train_128x160.npz"))


@pytest.mark.parametrize("name", ["mask_rcnn_poolformer_s12", "mask_rcnn_poolformer_s36"])
def test_parameters_are_the_official_ones(name: str) -> None:
    network = without_values(name, num_classes=80)
    found = {official_name(p.name): list(p.shape) for p in network.get_parameters()}
    assert found == DETECTOR_SHAPES[name]


@pytest.mark.long
@pytest.mark.layout
@pytest.mark.parametrize("size", SIZES)
def test_maps_and_proposals_are_the_official_ones(size: str, pynative_mode: None) -> None:
    official = official_forward(size)
    seed, height, width, shape = SIZES[size]
    network = official_network().set_train(False)
    levels = network.pyramid(official_images(seed, 1, 3, height, width))
    for number, x in enumerate(levels):
        check_map(official, f"p{number}", 16, x)
    logits, deltas, _ = network.first_pass(levels)
    for number, (logit, delta) in enumerate(zip(logits, deltas, strict=True)):
        check_channels(official, f"rpn_cls{number}", 1, logit.asnumpy())
        check_channels(official, f"rpn_reg{number}", 1, delta.asnumpy())
    for name, per_level in (("proposals", 1000), ("proposals_train", 2000)):
        boxes, scores = network.propose(logits, deltas, Tensor([shape]), per_level)
        check_proposals(official[name], boxes[0].asnumpy(), scores[0].asnumpy())
    check_heads(official, network, levels[:4])


def check_proposals(official: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> None:
    count = len(official)
    order = order_of(official, boxes, scores)
    np.testing.assert_array_equal(np.sort(order), np.arange(count))
    np.testing.assert_allclose(boxes[order], official[:, :4], rtol=0, atol=3e-3)
    np.testing.assert_allclose(scores[order], official[:, 4], rtol=0, atol=1e-5)
    assert (np.diff(scores) <= 0).all()
    assert not boxes[count:].any() and not scores[count:].any()


def order_of(official: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Where ours has each official box: equal scores but for rounding may have changed places."""
    ours = np.concatenate((boxes, 1000 * scores[:, None]), 1)
    return abs(official[:, None] * [1, 1, 1, 1, 1000] - ours).max(-1).argmin(1)


def check_heads(official: Any, network: MaskRCNN, maps: list[Tensor]) -> None:
    """Of boxes by hand, some of them tiny, without an area, or five times as large as the image."""
    boxes, labels = Tensor(official["hand_rois"][None, :, 1:]), official["hand_labels"]
    found = level_of(boxes, 4).asnumpy()[0]
    np.testing.assert_array_equal(found, official["hand_levels"])
    of_boxes = values_within(maps, boxes, BOX_SIZE, reach=5)
    check_map(official, "hand_feat7", 16, of_boxes)
    logits, deltas = network.roi_head.bbox_head(of_boxes)
    check_channels(official, "hand_cls_score", 1, logits.asnumpy())
    check_channels(official, "hand_bbox_pred", 1, deltas.asnumpy())
    of_masks = values_within(maps, boxes, MASK_SIZE, reach=5)
    check_map(official, "hand_feat14", 16, of_masks)
    logits = to_channels_first(network.roi_head.mask_head(of_masks)).asnumpy()
    own = logits[np.arange(len(labels)), labels]
    check_channels(official, "hand_mask_logits", 1, own)
    within = network.roi_head.masks(maps, boxes[:, :4], Tensor(labels[None, :4]))
    np.testing.assert_allclose(within.asnumpy(), own[:4], rtol=0, atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("size", [pytest.param("100x150", marks=pytest.mark.rare), "128x160"])
def test_boxes_and_masks_are_the_official_ones(size: str, pynative_mode: None) -> None:
    official = official_forward(size)
    seed, height, width, shape = SIZES[size]
    network = official_network().set_train(False)
    images, shapes = official_images(seed, 1, 3, height, width), Tensor([shape])
    for name, scale in (("det", None), ("det_rescaled", Tensor(np.full((1, 2), 0.64, np.float32)))):
        check_detections(official, name, network.detect(images, shapes, scale))


def check_detections(official: Any, name: str, found: tuple[Tensor, ...]) -> None:
    boxes, scores, labels, count, masks = (x.asnumpy()[0] for x in found)
    assert count == 100
    np.testing.assert_allclose(scores, official[f"{name}.scores"], rtol=0, atol=1e-4)
    np.testing.assert_array_equal(labels, official[f"{name}.labels"])
    off = abs(boxes - official[f"{name}.boxes"]).max(1)
    # Three flat proposals along the smaller image's upper border have one score but for rounding.
    assert (off < 5e-3).sum() >= 99 and off.max() < 1
    pixels = paste_masks(masks, boxes, tuple(official[f"{name}.mask_shape"][1:]))
    areas = pixels.sum((1, 2))
    same = off < 5e-3
    assert abs(areas - official[f"{name}.mask_areas"])[same].max() <= 2
    if f"{name}.masks_packed" in official.files:
        expected = np.unpackbits(official[f"{name}.masks_packed"], count=pixels.size)
        differing = (pixels != expected.reshape(pixels.shape)).sum((1, 2))
        assert differing[same].max() <= 2


def training_inputs(network: MaskRCNN) -> tuple[Tensor, ...]:
    """With draws that take the boxes of the official sampler, which took them at equal steps."""
    official = official_training()
    images, shapes = official_images(110, 2, 3, 128, 160), Tensor([(128, 160), (128, 160)])
    logits, deltas, _ = network.first_pass(network.pyramid(images))
    proposals, scores = (x.asnumpy() for x in network.propose(logits, deltas, shapes, 2000))
    boxes, labels = padded(official, images=2, length=LENGTH)
    masks = np.zeros((2, LENGTH, 128, 160), np.uint8)
    draws = np.full((2, LENGTH + 1000), 0.1, np.float32)
    for i in range(2):
        count = len(official[f"gt_labels{i}"])
        bits = np.unpackbits(official[f"gt_masks{i}"], count=count * 128 * 160)
        masks[i, :count] = bits.reshape(count, 128, 160)
        for drawn in (official[f"pos_inds{i}"], official[f"neg_inds{i}"]):
            order = order_of(official[f"proposals{i}"], proposals[i], scores[i])
            place = np.concatenate((np.arange(count), order + LENGTH))[drawn]
            draws[i, place] = 0.9 - 0.001 * np.arange(len(drawn))
    of_anchors = np.where(official["rpn.sampled"], 0.9, 0.1).astype(np.float32)
    masks, of_anchors, draws = Tensor(masks), Tensor(of_anchors), Tensor(draws)
    return images, boxes, labels, masks, shapes, shapes, of_anchors, draws


@pytest.mark.long
@pytest.mark.layout
def test_samples_and_targets_are_the_official_ones(pynative_mode: None) -> None:
    official = official_training()
    network = official_network()
    loss = MaskRCNNLoss(network, proposals=SAMPLED)
    images, boxes, labels, masks, shapes, _, of_anchors, draws = training_inputs(network)
    levels = network.pyramid(images)
    logits, deltas, sizes = network.first_pass(levels)
    found, counts, wanted = (
        x.asnumpy() for x in loss.first_targets(sizes, boxes, labels, shapes, of_anchors)
    )
    np.testing.assert_array_equal(found, official["rpn.target_fg"])
    np.testing.assert_array_equal(counts, official["rpn.sampled"])
    expected = official["rpn.target_deltas_of_fg"]
    np.testing.assert_allclose(wanted[found == 1], expected, rtol=0, atol=5e-6)
    assert [found.sum(), (counts - found).sum()] == [*official["rpn.num_total_pos_neg"]]
    proposals, scores = network.propose(logits, deltas, shapes, 2000)
    for i in range(2):
        check_proposals(official[f"proposals{i}"], proposals[i].asnumpy(), scores[i].asnumpy())
    rois, which, found, counts = loss.second_samples(proposals, scores, boxes, labels, draws)
    expected = official["rcnn.rois"].reshape(2, SAMPLED, 5)[..., 1:]
    np.testing.assert_allclose(rois.asnumpy(), expected, rtol=0, atol=3e-3)
    assert counts.asnumpy().all()
    found = found.asnumpy()
    classes = np.take_along_axis(labels.asnumpy(), which.asnumpy(), 1)
    classes = np.where(found, classes, 80).ravel()
    np.testing.assert_array_equal(classes, official["rcnn.labels"])
    np.testing.assert_array_equal(found.ravel(), official["rcnn.bbox_weights"])
    true = np.take_along_axis(boxes.asnumpy(), which.asnumpy()[..., None], 1)
    wanted = encode(rois, Tensor(true), OF_PROPOSALS).asnumpy()[found]
    expected = official["rcnn.bbox_targets"][found.ravel()]
    np.testing.assert_allclose(wanted, expected, rtol=0, atol=1e-3)
    logits, deltas = network.roi_head.boxes(levels[:4], rois)
    check_channels(official, "rcnn.cls_score", 1, logits.asnumpy())
    check_channels(official, "rcnn.bbox_pred", 8, deltas.asnumpy().reshape(2 * SAMPLED, -1))
    objects = SAMPLED // 4
    rois, which, found = rois[:, :objects], which[:, :objects], found[:, :objects].ravel()
    targets = loss.mask_targets(rois, which, masks, 28).asnumpy()[found]
    expected = np.unpackbits(official["mask.targets"], count=targets.size)
    assert (targets.ravel() != expected).mean() < 1e-4


@pytest.mark.rare  # five minutes
def test_losses_and_gradients_are_the_official_ones(pynative_mode: None) -> None:
    check_training()


def check_training() -> None:
    official = official_training()
    network = official_network()
    loss = MaskRCNNLoss(network, proposals=SAMPLED).set_train()

    def forward(*inputs: Tensor) -> tuple:
        objectness, first, classes, second, masks = loss(*inputs)
        total = objectness.sum() + first.sum() + classes + second + masks
        return total, objectness, first, classes, second, masks

    inputs, weights = training_inputs(network), network.trainable_params()
    found = [x.asnumpy() for x in check_gradients(official, forward, weights, inputs)]
    names = ["total_loss", "rpn.loss_cls_per_level", "rpn.loss_bbox_per_level"]
    names += ["rcnn.loss_cls", "rcnn.loss_bbox", "mask.loss"]
    for name, value in zip(names, found, strict=True):
        expected = official[name].reshape(value.shape)
        np.testing.assert_allclose(value, expected, rtol=5e-5, atol=1e-7, err_msg=name)


def test_initial_values_are_the_official_ones() -> None:
    network = mindcv.create_model("mask_rcnn_poolformer_s12", num_classes=80)
    values = {p.name: p.asnumpy() for p in network.get_parameters()}
    boxes, masks = "roi_head.bbox_head", "roi_head.mask_head"
    deviations = {
        "rpn_head.rpn_conv": 0.01,
        "rpn_head.rpn_reg": 0.01,
        f"{boxes}.shared_fcs.0": np.sqrt(2 / (12544 + 1024)),
        f"{boxes}.fc_cls": 0.01,
        f"{boxes}.fc_reg": 0.001,
        f"{masks}.convs.3.conv": np.sqrt(2 / (9 * 256)),
        f"{masks}.upsample": np.sqrt(2 / (4 * 256)),
        f"{masks}.conv_logits": np.sqrt(2 / 80),
    }
    for name, deviation in deviations.items():
        assert values[f"{name}.weight"].std() == pytest.approx(deviation, rel=0.04), name
        assert not values[f"{name}.bias"].any(), name


def test_a_backbone_gives_all_maps() -> None:
    with pytest.raises(ValueError, match="^backbone: found a classifier"):
        MaskRCNN(without_values("poolformer_s12"))
    three = without_values("poolformer_s12", features_only=True, out_indices=(1, 2, 3))
    with pytest.raises(ValueError, match=r"found out_indices \(1, 2, 3\), expected \(0, 1, 2, 3\)"):
        MaskRCNN(three)


class SecondPass(nn.Cell):
    def __init__(self, network: MaskRCNN) -> None:
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, boxes: Tensor, labels: Tensor, *maps: Tensor) -> tuple[Tensor, Tensor]:
        levels = [from_channels_first(x) for x in maps]
        logits, _ = self.network.roi_head.boxes(levels, boxes)
        return logits, self.network.roi_head.masks(levels, boxes, labels)


@pytest.mark.long
@pytest.mark.usefixtures("graph_kernels")
def test_in_float16_it_looks_at_the_same_places() -> None:
    """A box of 300 pixels has more pixels than float16 can count, and is still looked at on P4."""
    network = small_mask_rcnn(num_classes=2, channels=4)
    maps = [Tensor(np.full((1, 4, 8, 8), value, np.float32)) for value in (0, 0, 1, -1)]
    boxes = Tensor(np.array([[[10, 10, 260, 260], [0, 0, 300, 300]]], np.float32))
    inputs = (boxes, Tensor(np.array([[1, 0]], np.int32)), *maps)
    expected = op_by_op(SecondPass(network), *inputs)
    mixed_precision(network, "O3")
    for ours, exact in zip(SecondPass(network)(*inputs), expected, strict=True):
        ours, exact = ours.asnumpy().astype(np.float32), exact.asnumpy()
        np.testing.assert_allclose(ours, exact, rtol=0, atol=0.02 * np.ptp(exact))
        assert np.ptp(exact) > 0.1
