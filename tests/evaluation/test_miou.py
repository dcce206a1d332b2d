from __future__ import annotations

import numpy as np
import pytest
from official import FIXTURES

from mindcv_poolformer.data.segmentation.scenes import IGNORED, reduce_zero
from mindcv_poolformer.evaluation import miou
from mindcv_poolformer.evaluation.miou import Confusion, SegmentationScores
from mindcv_poolformer.runtime.errors import UserError

OFFICIAL = dict(np.load(FIXTURES / "official_segmentation.npz"))
CASES = ["five_classes", "seven_with_absent", "ade_like_reduce_zero"]


def scenes(case: str) -> tuple[int, np.ndarray, np.ndarray]:
    """Number of classes, predictions and labels (3, H, W)."""
    of = {name: OFFICIAL[f"miou.{case}.{name}"] for name in ("gt", "pred", "num_classes")}
    labels = of["gt"]
    if OFFICIAL[f"miou.{case}.reduce_zero_label"]:
        labels = reduce_zero(labels)
    return int(of["num_classes"]), of["pred"], labels


def counted(case: str, numbers: range | list[int]) -> Confusion:
    classes, predictions, labels = scenes(case)
    confusion = Confusion(classes)
    for number in numbers:
        confusion.add(predictions[number], labels[number])
    return confusion


@pytest.mark.parametrize("case", CASES)
def test_scores_are_the_official_ones(case: str) -> None:
    scores = counted(case, range(3)).scores()
    for name, found in [("IoU", scores.iou), ("Acc", scores.accuracy), *scores.scores.items()]:
        expected = 100 * OFFICIAL[f"miou.{case}.{name}"]
        np.testing.assert_allclose(found, expected, rtol=1e-14)
    assert str(scores) == (
        f"mIoU {100 * OFFICIAL[f'miou.{case}.mIoU']:.2f} %, "
        f"mAcc {100 * OFFICIAL[f'miou.{case}.mAcc']:.2f} %, "
        f"aAcc {100 * OFFICIAL[f'miou.{case}.aAcc']:.2f} %"
    )


def test_counts_by_hand() -> None:
    confusion = Confusion(3)
    confusion.add(np.array([[0, 1], [1, 0]]), np.array([[0, 0], [1, IGNORED]], np.uint8))
    confusion.add(np.array([1]), np.array([1], np.int32))
    assert confusion.counts.tolist() == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    scores = confusion.scores()
    np.testing.assert_allclose(scores.iou, [50, 200 / 3, np.nan])
    np.testing.assert_allclose(scores.accuracy, [50, 100, np.nan])
    assert scores.miou == pytest.approx((50 + 200 / 3) / 2)
    assert (scores.macc, scores.aacc) == (75, 75)
    assert scores.table(["sky", "chest of drawers", "sea"]).splitlines() == [
        "class                IoU     Acc",
        "sky                50.00   50.00",
        "chest of drawers   66.67  100.00",
        "sea                    -       -",
    ]


@pytest.mark.parametrize("case", CASES)
def test_no_division_of_the_scenes_changes_the_scores(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = counted(case, range(3))
    shares = [counted(case, list(range(rank, 3, 2))) for rank in range(2)]

    def gathered(own: np.ndarray, size: int) -> np.ndarray:
        assert size == 2 and own.dtype == np.int64
        return shares[0].counts + shares[1].counts

    monkeypatch.setattr(miou, "all_reduce_sum", gathered)
    for share in shares:
        scores: SegmentationScores = share.scores(world_size=2)
        assert (scores.counts == alone.counts).all()


def test_labels_of_which_none_counts() -> None:
    confusion = Confusion(2)
    confusion.add(np.zeros(4, int), np.full(4, IGNORED))
    with pytest.raises(UserError, match="validation: found no labelled pixel, expected some"):
        confusion.scores()


@pytest.mark.parametrize(
    ("predictions", "labels", "said"),
    [
        ([0, 2], [0, 0], "prediction 2 with 2 classes"),
        ([0, -1], [0, 0], "prediction -1 with 2 classes"),
        ([0, 0], [0, 254], "label 254 with 2 classes"),
        ([0], [0, 0], r"predictions \(1,\) for labels \(2,\)"),
    ],
)
def test_values_of_no_class(predictions: list[int], labels: list[int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Confusion(2).add(np.array(predictions), np.array(labels))
