from __future__ import annotations

import numpy as np
import pytest
from mindspore import Tensor, nn
from overwriting import overwriting
from PIL import Image
from scripts import write_images

from mindcv_poolformer.data.folder import ImageFolder, scan_folder
from mindcv_poolformer.data.loader import Shard, evaluation_dataset
from mindcv_poolformer.data.loader import batches as batches_of
from mindcv_poolformer.data.preprocess import EvalTransform
from mindcv_poolformer.evaluation.classification import (
    Tally,
    agreement,
    evaluate,
    of_all_ranks,
    tally,
)
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


@pytest.mark.parametrize("overwrites", [False, True])
def test_what_a_batch_gave_stays_when_others_follow(overwrites: bool) -> None:
    logits = np.random.default_rng(2).standard_normal((12, 20)).astype(np.float32)
    network = overwriting(Scores()) if overwrites else Scores()
    found = tally(network, batches(logits, np.zeros(12, int), 4), bar=False)
    assert found.predictions.tolist() == logits.argmax(axis=1).tolist()
    odds = np.exp(logits.astype(np.float64))
    np.testing.assert_allclose(found.confidences, odds.max(1) / odds.sum(1), rtol=1e-6)


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
    odds = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.confidences, odds.max(axis=1), rtol=1e-12)
    alone = of_all_ranks(found, 1)
    assert (alone.predictions == found.predictions).all()
    assert (alone.confidences == found.confidences).all()


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
    with pytest.raises(UserError, match="not finite in batch 0.* in float32 the weights are dam"):
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


class Linear(nn.Cell):
    """Images (N, 3, 8, 8) to logits of seven classes, image by image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = np.random.default_rng(2).standard_normal((192, 7)).astype(np.float32)
        self.product = Tensor(self.weight)

    def construct(self, images: Tensor) -> Tensor:
        return images.reshape(-1, 192) @ self.product


@pytest.fixture(scope="module")
def linear() -> Linear:
    return Linear()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> ImageFolder:
    """Seven classes of two images."""
    root = tmp_path_factory.mktemp("pictures")
    write_images(root, per_class=2, classes=7, size=(8, 8))
    return scan_folder(root)


def first(pictures: ImageFolder, count: int) -> ImageFolder:
    """Some of the images, of all classes."""
    chosen = np.random.default_rng(3).permutation(len(pictures))[:count]
    paths = tuple(pictures.paths[number] for number in chosen)
    return ImageFolder(pictures.root, pictures.classes, paths, pictures.labels[chosen])


def truth(network: Linear, images: ImageFolder) -> tuple[int, int, float, list[int]]:
    """Right at once, right among five, mean cross entropy, and the predictions."""
    pixels = [np.asarray(Image.open(path)).transpose(2, 0, 1) / 255 for path in images.paths]
    logits = np.stack(pixels).reshape(-1, 192) @ network.weight.astype(np.float64)
    order = np.argsort(-logits, axis=1)
    chosen = np.exp(logits)[np.arange(len(images)), images.labels] / np.exp(logits).sum(axis=1)
    return (
        int((order[:, 0] == images.labels).sum()),
        int((order[:, :5] == images.labels[:, None]).sum()),
        float(-np.log(chosen).mean()),
        order[:, 0].tolist(),
    )


def by_ranks(network: Linear, images: ImageFolder, ranks: int, batch_size: int) -> list[Tally]:
    """What each rank of a job finds."""
    transform = EvalTransform(8, 1.0, "bilinear", (0.0,) * 3, (255.0,) * 3)
    return [
        tally(
            network,
            batches_of(
                evaluation_dataset(
                    images,
                    transform,
                    batch_size=batch_size,
                    shard=Shard(rank, ranks),
                    num_parallel_workers=1,
                )
            ),
            bar=False,
        )
        for rank in range(ranks)
    ]


@pytest.mark.parametrize("batch_size", [1, 2, 5, 50])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 13])
def test_no_division_of_the_images_changes_the_scores(
    linear: Linear, pictures: ImageFolder, count: int, batch_size: int
) -> None:
    images = first(pictures, count)
    top1, top5, loss, predictions = truth(linear, images)
    for ranks in (1, 2, 3, 5):
        found = by_ranks(linear, images, ranks, batch_size)
        assert sum(own.images for own in found) == count
        assert sum(own.top1 for own in found) == top1
        assert sum(own.top5 for own in found) == top5
        assert sum(own.loss for own in found) / count == pytest.approx(loss, abs=1e-6)
        for rank, own in enumerate(found):
            assert own.predictions.tolist() == predictions[rank::ranks]
            assert own.images == len(own.predictions) == len(own.confidences)


def test_the_divided_images_could_tell(linear: Linear, pictures: ImageFolder) -> None:
    top1, top5, _, predictions = truth(linear, first(pictures, 13))
    assert 0 < top1 < top5 < 13
    assert len(set(predictions)) > 2
