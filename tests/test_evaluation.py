from __future__ import annotations

import numpy as np
import pytest
from mindspore import Tensor, nn

from mindcv_poolformer.evaluation import agreement, evaluate
from mindcv_poolformer.runtime.errors import UserError


class Scores(nn.Cell):
    """Gives its input as logits."""

    def construct(self, x: Tensor) -> Tensor:
        return x * 1.0


def batches(logits: np.ndarray, labels: np.ndarray, size: int) -> list[tuple[Tensor, Tensor]]:
    """In full batches; padding is label -1, with logits that would spoil every mean."""
    count = -(-len(labels) // size) * size
    padded = np.full((count, logits.shape[1]), np.nan, np.float32)
    padded[: len(labels)] = logits
    targets = np.full(count, -1, np.int32)
    targets[: len(labels)] = labels
    return [
        (Tensor(padded[i : i + size]), Tensor(targets[i : i + size])) for i in range(0, count, size)
    ]


@pytest.mark.parametrize("size", [1, 4, 13, 50])
def test_exact_over_every_image_once(size: int) -> None:
    rng = np.random.default_rng(0)
    logits = (3 * rng.standard_normal((13, 20))).astype(np.float32)
    labels = rng.integers(20, size=13)
    logits[np.arange(13), labels] += 4
    found = evaluate(Scores(), batches(logits, labels, size), world_size=1, bar=False)
    order = np.argsort(-logits, axis=1)
    top1 = sum(order[i, 0] == labels[i] for i in range(13))
    top5 = sum(labels[i] in order[i, :5] for i in range(13))
    exponentials = np.exp(logits.astype(np.float64))
    losses = -np.log(exponentials[np.arange(13), labels] / exponentials.sum(axis=1))
    assert found.images == 13
    assert found.top1 == 100 * top1 / 13
    assert found.top5 == 100 * top5 / 13
    assert 0 < top1 < top5 < 13
    assert found.loss == pytest.approx(losses.mean(), rel=1e-12)
    assert (found.predictions == order[:, 0]).all()


def test_equal_logits_go_to_the_lower_index() -> None:
    logits = np.zeros((8, 8), np.float32)
    found = evaluate(Scores(), batches(logits, np.arange(8), 8), world_size=1, bar=False)
    assert found.top1 == 100 / 8
    assert found.top5 == 100 * 5 / 8


def test_fewer_than_five_classes() -> None:
    logits = np.eye(3, dtype=np.float32)
    found = evaluate(Scores(), batches(logits, np.array([0, 2, 1]), 3), world_size=1, bar=False)
    assert found.top1 == pytest.approx(100 / 3)
    assert found.top5 == 100


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_do_not_count_as_right(bad: float) -> None:
    logits = np.zeros((2, 3), np.float32)
    logits[1, 2] = bad
    with pytest.raises(UserError, match="not finite in batch 0"):
        evaluate(Scores(), batches(logits, np.array([0, 0]), 2), world_size=1, bar=False)


def test_agreement() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.standard_normal((2, 40, 3)).astype(np.float32)
    second[:25] = first[:25]
    labels = np.zeros(40, np.int64)
    results = [
        evaluate(Scores(), batches(x, labels, 16), world_size=1, bar=False) for x in (first, second)
    ]
    same = (first.argmax(axis=1) == second.argmax(axis=1)).sum()
    assert 25 <= same < 40
    assert agreement(*results, world_size=1) == 100 * same / 40
