"""What counts as a right answer of a detector, by a plain non-maximum suppression."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from toy_detector import OBJECTS

from mindcv_poolformer.data.detection.objects import Objects
from mindcv_poolformer.export.golden_objects import difference as within

Found = tuple[np.ndarray, np.ndarray, np.ndarray]
FULL = dataclasses.replace(OBJECTS, detections=12)
ROOMY = dataclasses.replace(OBJECTS, detections=500)


def difference(found: Found, every: Found, objects: Objects = OBJECTS) -> float:
    return within(found, every, objects, tolerance=1e-4)


def candidates() -> Found:
    """300 boxes of three labels, many of them on each other, few of them sure."""
    rng = np.random.default_rng(0)
    corners, edges = rng.uniform(0, 300, (300, 2)), rng.uniform(40, 120, (300, 2))
    boxes = np.concatenate([corners, corners + edges], 1).astype(np.float32)
    boxes[::10, 2] = boxes[::10, 0]  # as clipped ones that lie outside
    scores = (rng.uniform(0, 1, 300) ** 3).astype(np.float32)
    return boxes, scores, rng.integers(0, 3, 300).astype(np.int32)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    width, height = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [np.prod(x[2:] - x[:2]) for x in (one, other)]
    return width * height / (sum(areas) - width * height)


def suppressed(every: Found, most: int) -> Found:
    kept: list[int] = []
    for i in np.argsort(-every[1]):
        twins = [j for j in kept if every[2][j] == every[2][i]]
        if every[1][i] > 0.05 and all(overlap(every[0][i], every[0][j]) <= 0.5 for j in twins):
            kept.append(int(i))
    order = kept[:most]
    return every[0][order], every[1][order], every[2][order]


@pytest.mark.parametrize("objects", [FULL, ROOMY])
def test_mistakes_are_told_by_their_size(objects: Objects) -> None:
    every = candidates()
    found = suppressed(every, objects.detections)
    boxes, scores, labels = found
    count = len(scores)
    assert count == 12 if objects is FULL else 60 < count < 200
    assert difference(found, every, objects) == 0
    if objects is ROOMY:
        without = boxes[1:], scores[1:], labels[1:]
        assert difference(without, every, objects) == pytest.approx(scores[0] - 0.05, abs=1e-6)
    moved = boxes.copy()
    longer = (boxes[3, 2:] - boxes[3, :2]).max()
    moved[3, 2] += 0.01 * longer
    assert difference((moved, scores, labels), every, objects) == pytest.approx(0.01, rel=0.05)
    surer = scores.copy()
    surer[5] += 0.02
    assert difference((boxes, surer, labels), every, objects) == pytest.approx(0.02, abs=1e-4)
    others = (labels + 1) % 3
    assert difference((boxes, scores, others), every, objects) > 0.1
    nan = np.full_like(scores, np.nan)
    assert not difference((boxes, nan, labels), every, objects) <= 1


def test_of_two_next_to_equal_boxes_either_may_stay() -> None:
    boxes = np.array([[0, 0, 100, 100], [0, 0, 100, 80], [200, 0, 260, 60]], np.float32)
    every = boxes, np.array([0.7, 0.7 - 1e-6, 0.4], np.float32), np.zeros(3, np.int32)
    for kept in ([0, 2], [1, 2]):
        boxes, scores, labels = (x[kept] for x in every)
        assert difference((boxes, scores, labels), every) <= 2e-6
    assert difference(every, every) == pytest.approx(0.8 - 0.5 - 0.01, abs=1e-3)


def test_nothing_found() -> None:
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32)
    boxes, scores, labels = candidates()
    assert difference(nothing, (boxes, scores * 0.05, labels)) == 0
    assert difference(nothing, (boxes, scores, labels)) == pytest.approx(
        scores.max() - 0.05, abs=1e-6
    )


def test_a_loose_tolerance_lets_overlaps_be_off_too() -> None:
    boxes = np.array([[0, 0, 100, 100], [0, 0, 100, 53]], np.float32)
    every = boxes, np.array([0.7, 0.4], np.float32), np.zeros(2, np.int32)
    assert within(every, every, OBJECTS, tolerance=0.02) == 0
    assert difference(every, every) == pytest.approx(0.02, abs=1e-3)
