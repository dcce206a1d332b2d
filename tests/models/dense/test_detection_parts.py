"""Parts of detectors against MMDetection's and MMCV's numbers, and NumPy's."""

from __future__ import annotations

import math

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from official_dense import DENSE

from mindcv_poolformer.data.detection.mask_pasting import PastedMasks, paste_masks
from mindcv_poolformer.models.dense import nms
from mindcv_poolformer.models.dense import roi_align as aligning
from mindcv_poolformer.models.dense.anchors import Anchors, boxes_around_origin
from mindcv_poolformer.models.dense.assignment import BACKGROUND, IGNORED, Assignment, iou
from mindcv_poolformer.models.dense.box_coding import (
    OF_PROPOSALS,
    UNIT,
    Deviations,
    clip,
    decode,
    encode,
)
from mindcv_poolformer.models.dense.fpn import every_second_place
from mindcv_poolformer.models.dense.losses import binary_cross_entropy, focal_loss
from mindcv_poolformer.models.dense.roi_align import axis_weights, crop_masks, level_of, roi_align
from mindcv_poolformer.models.dense.sampling import sample
from mindcv_poolformer.models.dense.selection import top
from mindcv_poolformer.models.parts.layout import from_channels_first, to_channels_first

OPERATIONS = np.load(DENSE / "operations.npz")
ANCHORS = {
    "retina": ((8, 16, 32, 64, 128), (0.5, 1, 2), (4, 4 * 2 ** (1 / 3), 4 * 2 ** (2 / 3))),
    "rpn": ((4, 8, 16, 32, 64), (0.5, 1, 2), (8,)),
}
RULES = {"retina": (0.5, 0.4, 0.0), "rpn": (0.7, 0.3, 0.3), "rcnn": (0.5, 0.5, 0.5)}


def official(name: str) -> Tensor:
    return Tensor(OPERATIONS[name])


@pytest.mark.parametrize("kind", ANCHORS)
def test_anchors_are_the_official_ones(kind: str, pynative_mode: None) -> None:
    strides, ratios, scales = ANCHORS[kind]
    for level, stride in enumerate(strides):
        around = boxes_around_origin(stride, ratios, scales)
        np.testing.assert_array_equal(around, OPERATIONS[f"anchors.{kind}.base{level}"])
    anchors = Anchors(strides, ratios, scales)
    sizes = tuple(map(tuple, OPERATIONS[f"anchors.{kind}.sizes"].tolist()))
    counts, level = anchors.counts(sizes), OPERATIONS[f"anchors.{kind}.level2"]
    begin = sum(counts[:2])
    found = anchors(sizes).asnumpy()
    np.testing.assert_array_equal(found[begin : begin + counts[2]], level)
    assert len(found) == sum(counts)
    within = anchors.within(sizes, Tensor([(98, 150)])).asnumpy()[0]
    np.testing.assert_array_equal(within, OPERATIONS[f"anchors.{kind}.valid_98x150"] == 1)


def test_anchors_beyond_an_image_are_told(pynative_mode: None) -> None:
    anchors, sizes = Anchors((8, 16), (1, 2), (4,)), ((5, 6), (3, 3))
    found = anchors.within(sizes, Tensor([(40, 48), (33, 16)])).asnumpy()
    expected = []
    for height, width in ((40, 48), (33, 16)):
        rows = []
        for (h, w), stride in zip(sizes, (8, 16), strict=True):
            flags = np.zeros((h, w, 2), bool)
            flags[: -(-height // stride), : -(-width // stride)] = True
            rows.append(flags.ravel())
        expected.append(np.concatenate(rows))
    np.testing.assert_array_equal(found, expected)
    assert found[0].all() and 0 < found[1].mean() < 1


@pytest.mark.parametrize(("kind", "deviations"), [("unit", UNIT), ("rcnn", OF_PROPOSALS)])
def test_box_coding_is_the_official_one(
    kind: str, deviations: Deviations, pynative_mode: None
) -> None:
    anchors = official("coder.anchors")
    found = encode(anchors, official("coder.gt"), deviations).asnumpy()
    np.testing.assert_allclose(found, OPERATIONS[f"coder.{kind}.deltas"], rtol=1e-5, atol=2e-6)
    boxes = decode(anchors, official(f"coder.{kind}.raw"), deviations)
    found = clip(boxes.expand_dims(0), Tensor([(120, 150)])).asnumpy()[0]
    expected = OPERATIONS[f"coder.{kind}.decoded_120x150"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-4)


def test_boxes_of_each_class_are_the_official_ones(pynative_mode: None) -> None:
    deltas = official("coder.rcnn.raw3").reshape(-1, 3, 4)
    found = decode(official("coder.anchors").expand_dims(1), deltas, OF_PROPOSALS)
    found = clip(found.reshape(1, -1, 4), Tensor([(120, 150)])).asnumpy()
    expected = OPERATIONS["coder.rcnn.decoded3"].reshape(1, -1, 4)
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-4)


def check_assignment(kind: str) -> None:
    """Of two images at once; true boxes are filled up with others that would match."""
    true, boxes = OPERATIONS["assign.gt"], official("assign.boxes")
    np.testing.assert_array_equal(
        iou(official("assign.gt").expand_dims(0), boxes.expand_dims(0)).asnumpy()[0],
        OPERATIONS["assign.iou"],
    )
    filled = np.concatenate((true, OPERATIONS["assign.boxes"][:3]))
    labels = np.array([[3, 0, 1, 5, 2, -1, -1, -1], [-1] * 8])
    found = Assignment(*RULES[kind])(boxes, Tensor(np.stack((filled, filled))), Tensor(labels))
    expected = OPERATIONS[f"assign.{kind}.gt_inds"].astype(int)
    expected = np.where(expected > 0, expected - 1, np.where(expected == 0, BACKGROUND, IGNORED))
    np.testing.assert_array_equal(found.asnumpy(), [expected, np.full(len(expected), BACKGROUND)])


@pytest.mark.parametrize("kind", RULES)
def test_assignments_are_the_official_ones(kind: str, pynative_mode: None) -> None:
    check_assignment(kind)


def test_assignments_where_some_take_no_part(pynative_mode: None) -> None:
    # The second and third anchor overlap the true box alike, and the first, which fits, is out.
    anchors = Tensor(np.array([[0, 0, 10, 10], [0, 0, 4, 10], [6, 0, 10, 10]], np.float32))
    boxes, labels = Tensor(np.array([[[0, 0, 10, 10]]], np.float32)), Tensor([[0]])
    rule = Assignment(*RULES["retina"])
    assert rule(anchors, boxes, labels).asnumpy().tolist() == [[0, IGNORED, IGNORED]]
    part = rule(anchors, boxes, labels, Tensor(np.array([[False, True, True]])))
    assert part.asnumpy().tolist() == [[IGNORED, 0, 0]]


@pytest.mark.layout
def test_every_second_place_of_odd_maps_has_a_gradient(pynative_mode: None) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 4, 5)).astype(np.float32)
    upstream = rng.standard_normal((2, 3, 2, 3)).astype(np.float32)

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        found = to_channels_first(every_second_place(from_channels_first(x)))
        return (found * Tensor(upstream)).sum(), found

    (_, found), gradient = ms.value_and_grad(forward, has_aux=True)(Tensor(x))
    np.testing.assert_array_equal(found.asnumpy(), x[:, :, ::2, ::2])
    expected = np.zeros_like(x)
    expected[:, :, ::2, ::2] = upstream
    np.testing.assert_array_equal(gradient.asnumpy(), expected)


@pytest.fixture(params=[nms.BLOCK, 50], ids=["one block", "blocks"])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nms, "BLOCK", request.param)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_what_survives_is_the_official(threshold: float, block: None, pynative_mode: None) -> None:
    order = np.argsort(-OPERATIONS["nms.scores"])
    boxes, labels = OPERATIONS["nms.boxes"][order], OPERATIONS["nms.labels"][order]
    found = order[nms.survivors(Tensor(boxes), threshold).asnumpy()]
    np.testing.assert_array_equal(found, OPERATIONS[f"nms.keep_{threshold}"])
    everything = Tensor(np.ones(len(order), bool))
    apart = nms.apart_by_label(Tensor(boxes), Tensor(labels), everything)
    found = order[nms.survivors(apart, threshold).asnumpy()]
    np.testing.assert_array_equal(found, OPERATIONS[f"nms.batched_keep_{threshold}"])


def test_an_overlap_of_the_threshold_is_allowed(block: None, pynative_mode: None) -> None:
    boxes = np.array([[0, 0, 8, 8], [0, 0, 8, 4], [0, 0, 8, 8], [9, 9, 9, 9], [9, 9, 9, 9]])
    found = nms.survivors(Tensor(boxes.astype(np.float32)), 0.5).asnumpy()
    assert found.tolist() == [True, True, False, True, True]


def test_the_best_of_each_label_are_the_official_ones(pynative_mode: None) -> None:
    boxes = OPERATIONS["multiclass.boxes"].reshape(60, 6, 4)
    scores = OPERATIONS["multiclass.scores"][:, :6]  # the last one is background
    found = nms.best_by_label(
        Tensor(boxes.reshape(1, -1, 4)),
        Tensor(scores.reshape(1, -1)),
        Tensor(np.tile(np.arange(6), (1, 60))),
        score_threshold=0.05,
        iou_threshold=0.5,
        most=20,
    )
    boxes, scores, labels, count = (x.asnumpy()[0] for x in found)
    expected = OPERATIONS["multiclass.dets"]
    assert count == 20
    np.testing.assert_allclose(boxes, expected[:, :4], rtol=1e-6)
    np.testing.assert_array_equal(scores, expected[:, 4])
    np.testing.assert_array_equal(labels, OPERATIONS["multiclass.labels"])


def test_the_best_are_filled_up(pynative_mode: None) -> None:
    scores, order = top(Tensor(np.array([[1, 3, 2]], np.float32)), 5)
    assert scores.asnumpy().tolist() == [[3, 2, 1, 0, 0]]
    assert order.asnumpy().tolist() == [[1, 2, 0, 0, 0]]


@pytest.mark.long
def test_graph_kernels_keep_equal_overlaps_equal(graph_kernels: None) -> None:
    check_assignment("retina")


def align_by_image(x: Tensor, size: int) -> Tensor:
    """RoIAlign of the fixture's boxes, which are some of the one and some of the other image."""
    rois = OPERATIONS["roi.rois"]
    boxes = Tensor(np.stack((rois[:, 1:], rois[:, 1:])))
    aligned = to_channels_first(roi_align(from_channels_first(x), boxes, 1 / 8, size))
    first, second = aligned[: len(rois)], aligned[len(rois) :]
    of_second = Tensor(rois[:, 0].reshape(-1, 1, 1, 1))
    return first * (1 - of_second) + second * of_second


@pytest.fixture(params=[aligning.MOST, 17_000], ids=["at once", "in parts"])
def most(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aligning, "MOST", request.param)


@pytest.mark.layout
@pytest.mark.parametrize("size", [7, 14])
def test_roi_align_is_the_official_one(size: int, most: None, pynative_mode: None) -> None:
    expected = OPERATIONS[f"roi.out{size}_sampling0"]
    upstream = Tensor(np.cos(np.arange(expected.size)).reshape(expected.shape).astype(np.float32))

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        found = align_by_image(x, size)
        return (found * upstream).sum(), found

    (_, found), gradient = ms.value_and_grad(forward, has_aux=True)(official("roi.feat"))
    np.testing.assert_allclose(found.asnumpy(), expected, rtol=0, atol=2e-5)
    expected = OPERATIONS[f"roi.grad{size}_sampling0"]
    np.testing.assert_allclose(gradient.asnumpy(), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("shape", [(2, 1, 40, 9), (2, 1, 9, 40), (2, 99, 9, 9)])
def test_no_array_of_roi_align_is_larger_than_the_most(
    shape: tuple[int, ...], pynative_mode: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def weights(begin: Tensor, end: Tensor, bins: int, length: int, reach: float) -> Tensor:
        points = math.ceil(reach * length / bins) + 1
        seen.append(len(begin) * bins * points * length)
        seen.append(len(begin) * bins * shape[3] * shape[1])
        return axis_weights(begin, end, bins, length, reach)

    monkeypatch.setattr(aligning, "MOST", 20_000)
    monkeypatch.setattr(aligning, "axis_weights", weights)
    boxes = np.tile(np.array([1, 1, 8, 8], np.float32), (2, 4, 1))
    roi_align(from_channels_first(Tensor(np.ones(shape, np.float32))), Tensor(boxes), 1.0, 4, 2.0)
    assert 10_000 < max(seen) <= 20_000


def test_levels_of_boxes_are_the_official_ones(pynative_mode: None) -> None:
    found = level_of(official("roi.level_rois")[:, 1:], 4).asnumpy()
    np.testing.assert_array_equal(found, OPERATIONS["roi.levels"])


@pytest.mark.parametrize("at_once", [16, 4])
def test_masks_are_cropped_as_officially(
    at_once: int, pynative_mode: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = np.unpackbits(OPERATIONS["mask.gt"]).reshape(OPERATIONS["mask.gt_shape"])
    monkeypatch.setattr(aligning, "MOST", at_once * 4 * masks[0].size)
    boxes = clip(official("mask.boxes").expand_dims(0), Tensor([masks.shape[1:]]))[0]
    found = crop_masks(Tensor(masks[OPERATIONS["mask.gt_of_box"]]), boxes, 28).asnumpy()
    np.testing.assert_array_equal(found, OPERATIONS["mask.targets"])


def test_masks_are_pasted_as_officially() -> None:
    expected = np.unpackbits(OPERATIONS["paste.masks"]).reshape(7, 128, 160)
    boxes = OPERATIONS["paste.boxes"]
    found = paste_masks(OPERATIONS["paste.prob"][:, 0], boxes, (128, 160))
    np.testing.assert_array_equal(found, expected)
    one_by_one = PastedMasks(OPERATIONS["paste.prob"][:, 0], boxes, (128, 160))
    np.testing.assert_array_equal(list(one_by_one), expected)
    assert not paste_masks(np.ones((1, 28, 28)), np.array([[900.0, 5, 950, 9]]), (50, 60)).any()


def test_the_focal_loss_is_the_official_one(pynative_mode: None) -> None:
    labels, weights = official("loss.targets"), official("loss.weights")

    def forward(logits: Tensor) -> Tensor:
        return (focal_loss(logits, labels) * weights).sum() / 7

    value, gradient = ms.value_and_grad(forward)(official("loss.logits"))
    assert float(value) == pytest.approx(float(OPERATIONS["loss.focal_avg7"]), rel=2e-5)
    expected = OPERATIONS["loss.focal_grad"]
    np.testing.assert_allclose(gradient.asnumpy(), expected, rtol=1e-4, atol=1e-6)


def test_binary_cross_entropy_is_that_of_numpy(pynative_mode: None) -> None:
    logits = np.array([-80, -3, -0.1, 0.2, 4, 90], np.float32)
    targets = np.array([0, 1, 0.3, 0, 1, 0], np.float32)
    found = binary_cross_entropy(Tensor(logits), Tensor(targets)).asnumpy()
    wide = logits.astype(np.float64)
    p = 1 / (1 + np.exp(-wide))
    with np.errstate(divide="ignore"):
        expected = -targets * np.log(p) - (1 - targets) * np.log(1 - p)
    expected[-1] = 90
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_samples_are_objects_first_and_then_background(pynative_mode: None) -> None:
    assigned = Tensor([[0, 1, -1, 0, -1, -2, -1, 2], [-1, -2, -1, -2, -2, 0, -2, -2]])
    draws = np.array([[0.2, 0.9, 0.1, 0.5, 0.3, 0.99, 0.7, 0.4], [0.5] * 4 + [0.9] * 4], np.float32)
    draws[1, 2] = 0.6
    numbers, objects, counts = (x.asnumpy() for x in sample(assigned, Tensor(draws), 5, 2))
    assert numbers[0].tolist() == [1, 3, 6, 4, 2] and counts[0].all()
    assert objects.tolist() == [[True, True, False, False, False], [True] + [False] * 4]
    assert numbers[1, :3].tolist() == [5, 2, 0]
    assert counts[1].tolist() == [True, True, True, False, False]


def test_samples_of_objects_alone(pynative_mode: None) -> None:
    assigned, draws = Tensor([[0, 1, 2, 3]]), Tensor(np.array([[0.1, 0.4, 0.3, 0.2]], np.float32))
    numbers, objects, counts = (x.asnumpy() for x in sample(assigned, draws, 4, 2))
    assert numbers[0, :2].tolist() == [1, 2]
    assert objects.tolist() == counts.tolist() == [[True, True, False, False]]


def test_no_draw_makes_background_an_object(pynative_mode: None) -> None:
    """Not even the last number below 1, which 1 more rounds up to 2."""
    draws = np.full((1, 6), 0.5, np.float32)
    draws[0, 2] = np.nextafter(np.float32(1), np.float32(0))
    assigned = Tensor(np.full((1, 6), BACKGROUND, np.int32))
    numbers, objects, counts = (x.asnumpy() for x in sample(assigned, Tensor(draws), 4, 2))
    assert numbers[0, 0] == 2 and not objects.any() and counts.all()
