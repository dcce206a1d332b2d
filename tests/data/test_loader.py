from __future__ import annotations

import gc
import multiprocessing
import sys
import weakref
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from PIL import Image

from mindcv_poolformer.data.augment import RandAugment, TrainTransform
from mindcv_poolformer.data.folder import ImageFolder, scan_folder
from mindcv_poolformer.data.loader import (
    Shard,
    evaluation_dataset,
    training_dataset,
    worker_error,
)
from mindcv_poolformer.data.mix import BatchTransform
from mindcv_poolformer.data.order import epoch_order
from mindcv_poolformer.data.preprocess import EvalTransform
from mindcv_poolformer.runtime.errors import UserError

MEAN, STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
PLAIN = TrainTransform(8, MEAN, scale=(1, 1), ratio=(1, 1), interpolation="bilinear", hflip=0.0)
RANDOM = TrainTransform(16, MEAN, rand_augment=RandAugment.parse("rand-m9-mstd0.5-inc1"))
EVALUATION = EvalTransform(8, 1.0, "bilinear", MEAN, STD)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> ImageFolder:
    """Ten classes of one image each; image i has the colour 20 i."""
    root = tmp_path_factory.mktemp("images")
    for index in range(10):
        (root / str(index)).mkdir()
        Image.new("RGB", (8, 8), (20 * index,) * 3).save(root / str(index) / "image.png")
    return scan_folder(root)


@pytest.fixture(scope="module")
def noise_folder(tmp_path_factory) -> ImageFolder:
    """Two classes of 13 times the same image."""
    root = tmp_path_factory.mktemp("noise")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8))
    for index in range(26):
        path = root / str(index % 2) / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        image.save(path)
    return scan_folder(root)


def run(dataset) -> list[tuple[np.ndarray, ...]]:
    iterator = dataset.create_tuple_iterator(num_epochs=1, output_numpy=True)
    return [tuple(column.copy() for column in row) for row in iterator]


def train(folder: ImageFolder, transform=PLAIN, batch_transform=None, **changes):
    settings = dict(
        batch_size=4,
        shard=Shard(),
        seed=1,
        shuffle=True,
        drop_remainder=True,
        epochs=2,
        num_parallel_workers=1,
        python_multiprocessing=False,
    )
    batch_transform = batch_transform or BatchTransform(len(folder.classes), MEAN, STD)
    return training_dataset(folder, transform, batch_transform, **settings | changes)


def seen(batches: list[tuple[np.ndarray, ...]]) -> list[list[int]]:
    """The images of each batch by number, told by the colour, which must agree with the target."""
    numbers = []
    for images, targets in batches:
        number = (images[:, 0, 0, 0] / 20).astype(int)
        assert (images == 20 * number[:, None, None, None]).all()
        np.testing.assert_array_equal(targets, np.eye(10)[number])
        numbers.append(number.tolist())
    return numbers


def same(left, right) -> bool:
    return len(left) == len(right) and all(
        np.array_equal(a, b)
        for one, two in zip(left, right, strict=True)
        for a, b in zip(one, two, strict=True)
    )


def test_unshuffled_batches_and_the_remainder(folder):
    assert seen(run(train(folder, shuffle=False))) == [[0, 1, 2, 3], [4, 5, 6, 7]] * 2
    filled = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1]]
    dataset = train(folder, shuffle=False, drop_remainder=False)
    assert dataset.get_dataset_size() == 6
    assert seen(run(dataset)) == filled * 2
    few = train(folder, shuffle=False, drop_remainder=False, batch_size=12, epochs=1)
    assert seen(run(few)) == [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]]


def test_shuffled_epochs_follow_the_order(folder):
    batches = seen(run(train(folder, batch_size=5)))
    for epoch in range(2):
        order = batches[2 * epoch] + batches[2 * epoch + 1]
        assert order == epoch_order(10, epoch, 1, shuffle=True).tolist()
    assert batches[:2] != batches[2:]


def test_images_are_float32_columns(folder):
    dataset = train(folder)
    assert dataset.get_col_names() == ["images", "targets"]
    images, targets = run(dataset)[0]
    assert images.shape == (4, 3, 8, 8) and images.dtype == np.float32
    assert targets.shape == (4, 10) and targets.dtype == np.float32


def test_two_ranks_see_together_what_one_process_sees(folder):
    alone = seen(run(train(folder, drop_remainder=False)))
    ranks = [
        seen(run(train(folder, batch_size=2, shard=Shard(rank, 2), drop_remainder=False)))
        for rank in range(2)
    ]
    assert [first + second for first, second in zip(*ranks, strict=True)] == alone


@pytest.mark.parametrize("batch_size", [1, 7, 12, 16])
def test_images_keep_their_order_whatever_a_worker_loads_at_once(folder, batch_size):
    batches = seen(run(train(folder, drop_remainder=False, batch_size=batch_size, epochs=1)))
    images = [image for batch in batches for image in batch]
    assert images == np.resize(epoch_order(10, 0, 1, shuffle=True), len(images)).tolist()
    assert {len(batch) for batch in batches} == {batch_size}


MIXED = BatchTransform(2, MEAN, STD, mixup=0.8, cutmix=1.0, label_smoothing=0.1, erase_prob=0.5)


@pytest.fixture(scope="module")
def reference(noise_folder) -> list[tuple[np.ndarray, ...]]:
    return run(train(noise_folder, RANDOM, MIXED))


def test_draws_depend_on_seed_rank_and_epoch(noise_folder, reference):
    assert same(reference, run(train(noise_folder, RANDOM, MIXED)))
    assert not same(reference, run(train(noise_folder, RANDOM, MIXED, seed=2)))
    erasing = BatchTransform(2, MEAN, STD, erase_prob=1.0)
    settings = dict(batch_size=26, drop_remainder=False)  # both ranks see all of the 26 images
    for transform, batch_transform in ((RANDOM, None), (PLAIN, erasing)):
        runs = [
            run(train(noise_folder, transform, batch_transform, shard=Shard(rank, 2), **settings))
            for rank in range(2)
        ]
        images = [image.tobytes() for batches in runs for batch, _ in batches for image in batch]
        assert len(set(images)) == 26 * 2 * 2  # no two alike over ranks and epochs


@pytest.mark.parametrize("processes", [False, True])
def test_workers_do_not_change_a_batch(noise_folder, reference, processes):
    @ms.jit
    def double(x):
        return x + x

    double(ms.Tensor(np.ones(3, np.float32)))  # forked workers must live with a graph that ran
    settings = dict(num_parallel_workers=2, python_multiprocessing=processes)
    assert same(reference, run(train(noise_folder, RANDOM, MIXED, **settings)))
    for start in (5, 6, 11):  # within the first epoch of 6 batches, at its end, the last batch
        resumed = train(noise_folder, RANDOM, MIXED, start_step=start, **settings)
        assert resumed.get_dataset_size() == 12 - start
        assert same(reference[start:], run(resumed))


def evaluate(folder: ImageFolder, batch_size: int, shard: Shard, processes: bool = False):
    return run(
        evaluation_dataset(
            folder,
            EVALUATION,
            batch_size=batch_size,
            shard=shard,
            num_parallel_workers=2,
            python_multiprocessing=processes,
        )
    )


@pytest.mark.parametrize(
    ("batch_size", "ranks", "batches", "processes"),
    [(4, 1, 3, False), (4, 1, 3, True), (2, 3, 2, False), (10, 1, 1, False), (1, 12, 1, False)],
)
def test_evaluation_sees_every_image_once(folder, batch_size, ranks, batches, processes):
    found = []
    for rank in range(ranks):
        rows = evaluate(folder, batch_size, Shard(rank, ranks), processes)
        assert len(rows) == batches
        for images, labels in rows:
            assert images.shape == (batch_size, 3, 8, 8) and images.dtype == np.float32
            assert labels.shape == (batch_size,) and labels.dtype == np.int32
            for image, label in zip(images, labels, strict=True):
                assert (image == (20 * label if label >= 0 else 0)).all()
            found += [label for label in labels.tolist() if label >= 0]
    assert sorted(found) == list(range(10))


@pytest.mark.parametrize("processes", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_a_damaged_image_stops_the_run_by_name(noise_folder, tmp_path, training, processes):
    damaged = tmp_path / "0" / "damaged.png"
    damaged.parent.mkdir()
    damaged.write_bytes(Path(noise_folder.paths[0]).read_bytes()[:900])
    folder = scan_folder(tmp_path)
    settings = dict(num_parallel_workers=2, python_multiprocessing=processes, batch_size=1)
    dataset = (
        train(folder, **settings)
        if training
        else evaluation_dataset(folder, EVALUATION, shard=Shard(), **settings)
    )
    with pytest.raises(RuntimeError) as error:
        run(dataset)
    user_error = worker_error(error.value)
    assert isinstance(user_error, UserError)
    assert str(user_error).startswith(f"image {damaged} ")
    assert "\n" not in str(user_error)


def test_a_forked_worker_never_collects_what_its_parent_left(folder):
    iterator = train(folder).create_tuple_iterator(num_epochs=1, output_numpy=True)
    next(iterator)
    left = weakref.ref(iterator)

    def work() -> None:
        gc.collect()
        sys.exit(0 if left() is not None else 1)

    gc.disable()
    cycle = [iterator]
    cycle.append(cycle)
    del iterator, cycle
    worker = multiprocessing.get_context("fork").Process(target=work)
    worker.start()
    gc.enable()
    worker.join(20)
    assert worker.exitcode == 0
    assert gc.get_freeze_count() == 0  # the parent collects as before


def test_other_errors_are_not_taken_for_the_users():
    assert worker_error(RuntimeError("map operation failed\nValueError: UserError: no")) is None


def test_too_many_workers(folder):
    with pytest.raises(UserError, match="num_parallel_workers is 4096"):
        train(folder, num_parallel_workers=4096)
