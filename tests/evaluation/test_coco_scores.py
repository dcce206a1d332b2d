"""Against `fixtures/coco`: what mmdet 2.19.0 and pycocotools make of the same results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_files import CATEGORIES, annotation, picture, write
from official import FIXTURES
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mindcv_poolformer.data.detection.coco import CocoPictures, evaluation_pictures
from mindcv_poolformer.data.order import Shard
from mindcv_poolformer.evaluation import coco
from mindcv_poolformer.evaluation import detections as detections_module
from mindcv_poolformer.evaluation.coco import score
from mindcv_poolformer.evaluation.coco_scores import NAMES, DetectionScores
from mindcv_poolformer.evaluation.detections import Detections
from mindcv_poolformer.runtime.errors import UserError

OFFICIAL = FIXTURES / "coco"
EXPECTED = json.loads((OFFICIAL / "expected.json").read_text())
BOXES, MASKS = (
    json.loads((OFFICIAL / f"results.{kind}.json").read_text()) for kind in ("bbox", "segm")
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> CocoPictures:
    return evaluation_pictures(OFFICIAL / "instances.json", tmp_path_factory.mktemp("pictures"))


def rows_by_picture(pictures: CocoPictures) -> list[tuple[np.ndarray, ...]]:
    """Of each picture: boxes, scores, labels and masks, as a network would give them."""
    index_of = {number: place for place, number in enumerate(pictures.category_ids.tolist())}
    everything = []
    for number in pictures.ids.tolist():
        rows = [(box, mask) for box, mask in zip(BOXES, MASKS) if box["image_id"] == number]
        assert all(box["score"] == mask["score"] for box, mask in rows)
        xywh = np.array([box["bbox"] for box, _ in rows]).reshape(-1, 4)
        everything.append(
            (
                np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
                np.array([box["score"] for box, _ in rows]),
                np.array([index_of[box["category_id"]] for box, _ in rows], int),
                [coco_mask.decode(mask["segmentation"]) for _, mask in rows],
            )
        )
    return everything


def detections(pictures: CocoPictures, numbers: Any = None, *, masks: bool = True) -> Detections:
    found = Detections(pictures, masks=masks)
    rows = rows_by_picture(pictures)
    for number in range(len(pictures)) if numbers is None else numbers:
        *of_boxes, of_masks = rows[number]
        found.add(number, *of_boxes, *([of_masks] if masks else []))
    return found


def test_the_numbers_are_the_official_ones(
    pictures: CocoPictures, capfd: pytest.CaptureFixture[str]
) -> None:
    scores = score(detections(pictures))
    assert EXPECTED["names"] == list(NAMES)
    for kind, found in (("bbox", scores.boxes), ("segm", scores.masks)):
        np.testing.assert_allclose(found.values / 100, EXPECTED[kind], rtol=1e-12)
        by_class = dict(zip(pictures.classes, found.by_class / 100, strict=True))
        assert by_class == pytest.approx(EXPECTED[f"{kind}_per_class"], rel=1e-12)
    assert capfd.readouterr() == ("", "")  # nothing of pycocotools
    assert scores.scores["box_AP"] == pytest.approx(100 * EXPECTED["bbox"][0])
    assert scores.scores["mask_ARl"] == pytest.approx(100 * EXPECTED["segm"][11])


def test_results_are_the_official_files(pictures: CocoPictures, tmp_path: Path) -> None:
    paths = detections(pictures).write(tmp_path)
    assert [path.name for path in paths] == ["results.bbox.json", "results.segm.json"]
    boxes, masks = (json.loads(path.read_text()) for path in paths)
    key = lambda row: (row["image_id"], row["category_id"], -row["score"])  # noqa: E731
    for found, expected in ((boxes, BOXES), (masks, MASKS)):
        assert len(found) == len(expected)
        for one, other in zip(sorted(found, key=key), sorted(expected, key=key), strict=True):
            assert one.keys() == other.keys()
            for name, value in other.items():
                assert one[name] == (pytest.approx(value, abs=1e-4) if name == "bbox" else value)
    assert detections(pictures, masks=False).write(tmp_path / "boxes")[0].exists()
    assert not (tmp_path / "boxes" / "results.segm.json").exists()


def test_tables(pictures: CocoPictures) -> None:
    scores = score(detections(pictures))
    assert str(scores) == "box AP 29.7 %, mask AP 26.1 %"
    assert scores.table(pictures.classes).splitlines() == [
        "class        box AP  mask AP",
        "person        21.66    20.43",
        "car           27.64    22.51",
        "toothbrush    39.69    35.33",
    ]
    lines = scores.boxes.table().splitlines()
    assert lines[0].split() == ["IoU", "objects", "at", "most", "%"] and len(lines) == 13
    assert lines[1].split() == ["AP", "0.50:0.95", "all", "100", "29.66"]
    assert lines[8].split() == ["AR10", "0.50:0.95", "all", "10", "41.58"]
    boxes = score(detections(pictures, masks=False))
    assert str(boxes) == "box AP 29.7 %" and boxes.masks is None


@pytest.mark.parametrize(
    "shares",
    [
        [range(0, 16, 2), range(1, 16, 2)],
        [range(9), range(7, 16)],
        [range(4), range(4, 12), range(12, 16), range(0)],  # more ranks than classes
    ],
)
def test_ranks_add_up_without_what_is_there_twice(
    pictures: CocoPictures, shares, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture that the second rank has again counts as the first has it."""
    ranks = [detections(pictures, share) for share in shares]
    for number in set(shares[0]) & set(shares[1]):
        ranks[1].add(number, np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), [])
    count = len(ranks)
    own = [detections_module._packed(rank._found) for rank in ranks]
    monkeypatch.setattr(detections_module, "all_gather_arrays", lambda arrays, size: own)
    alone = detections(pictures)
    for rank in ranks:
        rank.gather(count)
        for kind in ("bbox", "segm"):
            assert list(rank.results(kind)) == list(alone.results(kind))
    categories = np.sort(pictures.category_ids)
    for kind in ("bbox", "segm"):
        expected = coco._score(alone, kind, Shard())
        parts = [
            coco._parts(rank, kind, categories[number::count]) for number, rank in enumerate(ranks)
        ]
        monkeypatch.setattr(coco, "all_gather_arrays", lambda arrays, size, parts=parts: parts)
        for number, rank in enumerate(ranks):
            found = coco._score(rank, kind, Shard(number, count))
            assert found.values.tolist() == expected.values.tolist()
            assert found.by_class.tolist() == expected.by_class.tolist()


def nothing(pictures: CocoPictures, masks: bool) -> Detections:
    found = Detections(pictures, masks=masks)
    for number in range(len(pictures)):
        empty = [np.zeros((0, *pictures.sizes[number]))] if masks else []
        found.add(number, np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), *empty)
    return found


def test_nothing_found(pictures: CocoPictures, tmp_path: Path) -> None:
    found = nothing(pictures, True)
    scores = score(found)
    assert scores.boxes.values.tolist() == [0] * 12 == scores.masks.values.tolist()
    assert [json.loads(path.read_text()) for path in found.write(tmp_path)] == [[], []]


def truth(tmp_path: Path, **changes: Any) -> CocoPictures:
    """One person from 10 to 20, numbered 0, which pycocotools takes for no match."""
    content = {
        "images": [picture(5, 100, 80), picture(3, 100, 80)],
        "categories": CATEGORIES,
        "annotations": [annotation(0, 5, 1, 10, 10, 40, 40)],
    } | changes
    return evaluation_pictures(write(tmp_path / "mine.json", content), tmp_path)


def one_person(pictures: CocoPictures) -> DetectionScores:
    found = Detections(pictures, masks=True)
    mask = np.zeros((1, 80, 100), bool)
    mask[0, 10:50, 10:50] = True
    label = pictures.classes.index("person")
    found.add(0, np.array([[10, 10, 50, 50]]), np.array([0.9]), np.array([label]), mask)
    found.add(1, np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), mask[:0])
    return score(found)


def test_an_object_numbered_0_is_found(tmp_path: Path) -> None:
    scores = one_person(truth(tmp_path))
    for kind in (scores.boxes, scores.masks):
        assert kind.ap == pytest.approx(100)
        assert np.isnan(kind.by_class).tolist() == [True, False, True]  # no car, no brush
        assert np.isnan(kind.values).tolist() == [
            name in ("APs", "APl", "ARs", "ARl") for name in NAMES
        ]
    assert "box_APs" not in scores.scores and scores.scores["mask_APm"] == pytest.approx(100)
    assert scores.table(["car", "person", "brush"]).splitlines()[1].split() == ["car", "-", "-"]


def test_what_training_leaves_out_is_looked_for(tmp_path: Path) -> None:
    """As pycocotools does by itself, told from numbers above 0: a crowd takes what lies in it."""
    objects = [
        annotation(1, 5, 1, 10, 10, 40, 40),
        annotation(2, 5, 1, 0, 0, 0.5, 9),
        annotation(3, 5, 1, 60, 60, 10, 10, ignore=1),
        annotation(4, 5, 77, 60, 60, 10, 10),
        annotation(5, 3, 1, 1, 1, 90, 70, iscrowd=1),
    ]
    pictures = truth(tmp_path, annotations=objects)
    found = Detections(pictures, masks=False)
    boxes = np.array([[10, 10, 50, 50], [60, 60, 71, 70], [30, 30, 40, 44]], float)
    found.add(0, boxes, np.array([0.9, 0.5, 0.6]), np.array([1, 1, 0]))
    found.add(1, boxes, np.array([0.9, 0.7, 0.6]), np.array([1, 1, 1]))
    coco_truth = COCO(str(pictures.file.path))
    results = coco_truth.loadRes(list(found.results("bbox")))
    evaluation = COCOeval(coco_truth, results, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    expected = np.where(evaluation.stats < 0, np.nan, 100 * evaluation.stats)
    np.testing.assert_allclose(score(found).boxes.values, expected, rtol=1e-12)
    assert 0 < expected[0] < 100


def test_classes_in_another_order(tmp_path: Path) -> None:
    truth(tmp_path)
    chosen = evaluation_pictures(tmp_path / "mine.json", tmp_path, classes=["brush", "person"])
    scores = one_person(chosen)
    assert scores.boxes.by_class[1] == pytest.approx(100) and np.isnan(scores.boxes.by_class[0])


def test_truth_that_cannot_be_compared_with(tmp_path: Path) -> None:
    crowd = [annotation(0, 5, 1, 10, 10, 40, 40, iscrowd=1)]
    with pytest.raises(UserError, match="mine.json: found no object of the 3 classes, expected"):
        one_person(truth(tmp_path, annotations=crowd))
    for outline, said in (
        ([], "found no outline, expected one to draw a mask of"),
        ({"size": [80, 100], "counts": "0"}, "found runs of 0 pixels, expected 8,000 in all"),
    ):
        bad = [annotation(7, 5, 1, 10, 10, 40, 40, segmentation=outline)]
        with pytest.raises(UserError) as error:
            one_person(truth(tmp_path, annotations=bad))
        assert str(error.value) == f"{tmp_path}/mine.json: picture 5, annotation 7: {said}"


@pytest.mark.parametrize(
    ("boxes", "scores", "labels", "masks", "said"),
    [
        ([[0, 0, 1, 1]], [0.5, 0.5], [0], None, "1 boxes, 2 scores, 1 labels, no masks"),
        ([[0, 0, 1, 1]], [0.5], [0], np.ones((1, 400, 300)), "1 boxes, .* 1 masks"),
        ([[0, 0, 1, np.nan]], [0.5], [0], None, "boxes or scores that are not finite"),
        ([[0, 0, 1, 1]], [0.5], [3], None, "labels from 3 to 3 with 3 classes"),
    ],
)
def test_results_that_are_none(pictures, boxes, scores, labels, masks, said: str) -> None:
    found = Detections(pictures, masks=False)
    with pytest.raises(ValueError, match=said):
        found.add(0, np.array(boxes), np.array(scores), np.array(labels), masks)
    with pytest.raises(ValueError, match="16 of 16 pictures not looked at"):
        score(found)
    with pytest.raises(ValueError, match=r"a mask of \(2, 3\) on a picture of \(400, 300\)"):
        Detections(pictures, masks=True).add(0, [[0, 0, 1, 1]], [1], [0], np.ones((1, 2, 3)))
