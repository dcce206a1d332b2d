from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import mindspore as ms
import numpy as np
import psutil
import pytest
from PIL import Image

from mindcv_poolformer.data.augment import RandAugment, TrainTransform
from mindcv_poolformer.data.folder import ImageFolder, scan_folder
from mindcv_poolformer.data.loader import (
    Shard,
    drop_path_scales,
    evaluation_dataset,
    training_dataset,
    worker_error,
)
from mindcv_poolformer.data.mix import BatchTransform
from mindcv_poolformer.data.order import epoch_order
from mindcv_poolformer.data.preprocess import EvalTransform
from mindcv_poolformer.runtime.errors import UserError

ROOT = Path(__file__).parents[2]
MEAN, STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
PLAIN = TrainTransform(8, MEAN, scale=(1, 1), ratio=(1, 1), interpolation="bilinear", hflip=0.0)
RANDOM = TrainTransform(16, MEAN, rand_augment=RandAugment.parse("rand-m9-mstd0.5-inc1"))
ONE_RANK = Shard()
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


def test_drop_path_keeps_the_mean_of_each_branch() -> None:
    rates = (0.0, 0.25, 0.5)
    scales = drop_path_scales(rates, 20_000, np.random.default_rng(0))
    assert (scales.shape, scales.dtype) == ((3, 2, 20_000), np.float32)
    for rate, of_block in zip(rates, scales, strict=True):
        assert set(np.unique(of_block)) <= {0, np.float32(1 / (1 - rate))}
        np.testing.assert_allclose((of_block > 0).mean(axis=1), 1 - rate, atol=0.015)


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


def evaluation(folder: ImageFolder, batch_size: int = 1, shard: Shard = ONE_RANK):
    return evaluation_dataset(
        folder, EVALUATION, batch_size=batch_size, shard=shard, num_parallel_workers=2
    )


@pytest.mark.parametrize(
    ("batch_size", "ranks", "steps"), [(4, 1, 3), (2, 3, 2), (10, 1, 1), (1, 12, 1)]
)
def test_evaluation_sees_every_image_once(folder, batch_size, ranks, steps):
    found = []
    for rank in range(ranks):
        rows = run(evaluation(folder, batch_size, Shard(rank, ranks)))
        assert len(rows) == steps
        for images, labels in rows:
            assert images.shape == (batch_size, 3, 8, 8) and images.dtype == np.float32
            assert labels.shape == (batch_size,) and labels.dtype == np.int32
            for image, label in zip(images, labels, strict=True):
                assert (image == (20 * label if label >= 0 else 0)).all()
            found += [label for label in labels.tolist() if label >= 0]
    assert sorted(found) == list(range(10))


def test_evaluation_forks_nothing(folder):
    before = set(psutil.Process().children())
    for _ in evaluation(folder).create_tuple_iterator(num_epochs=1):
        assert set(psutil.Process().children()) <= before


@pytest.mark.parametrize(
    "dataset_of",
    [
        evaluation,
        partial(train, num_parallel_workers=2, batch_size=1),
        partial(train, num_parallel_workers=2, batch_size=1, python_multiprocessing=True),
    ],
    ids=["evaluation", "training, threads", "training, processes"],
)
def test_a_damaged_image_stops_the_run_by_name(noise_folder, tmp_path, dataset_of):
    damaged = tmp_path / "0" / "damaged.png"
    damaged.parent.mkdir()
    damaged.write_bytes(Path(noise_folder.paths[0]).read_bytes()[:900])
    with pytest.raises(RuntimeError) as error:
        run(dataset_of(scan_folder(tmp_path)))
    user_error = worker_error(error.value)
    assert isinstance(user_error, UserError)
    assert str(user_error).startswith(f"image {damaged} ")
    assert "\n" not in str(user_error)


def test_a_forked_worker_never_collects_what_its_parent_left():
    """In a process of its own: no pipeline that may just be ending runs beside this fork."""
    program = """\
import gc, os, weakref
import mindcv_poolformer.data.loader
class Left: pass
gc.disable()
left = Left()
left.itself, found = left, weakref.ref(left)
del left
worker = os.fork()
gc.collect()
if not worker: os._exit(found() is None)
assert found() is None, "the parent collects as before"
assert os.waitpid(worker, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=120)


def test_other_errors_are_not_taken_for_the_users():
    assert worker_error(RuntimeError("map operation failed\nValueError: UserError: no")) is None


def test_no_more_workers_than_cores(folder, capsys):
    cores = os.cpu_count()
    for rank in range(2):
        shard = Shard(rank, 2)
        stream = train(folder, num_parallel_workers=4096, shard=shard)
        evaluation_dataset(folder, EVALUATION, batch_size=4, shard=shard, num_parallel_workers=4096)
    assert capsys.readouterr().out == (
        f"num_parallel_workers: {cores} instead of 4096, all of this machine's cores\n"
    )
    assert len(run(stream)) > 0
