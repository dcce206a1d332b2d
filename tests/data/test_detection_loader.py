from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from coco_files import CATEGORIES, annotation, picture, write, write_pictures

from mindcv_poolformer.data.corrupt import CorruptImages
from mindcv_poolformer.data.detection.coco import (
    CocoPictures,
    evaluation_pictures,
    split_paths,
    training_pictures,
)
from mindcv_poolformer.data.detection.fitting import EvalTransform
from mindcv_poolformer.data.detection.loader import evaluation_batches, training_batches
from mindcv_poolformer.data.detection.order import epoch_batches, grouped_steps
from mindcv_poolformer.data.detection.transforms import TrainTransform
from mindcv_poolformer.data.loader import Shard, worker_error
from mindcv_poolformer.runtime.errors import UserError

WIDE, OTHERS = 5, 4
PLAIN = dict(img_scale=(64, 48), mean=(0.0,) * 3, std=(1.0,) * 3)
TRANSFORM = TrainTransform(**PLAIN)
EVALUATION = EvalTransform(**PLAIN, size_divisor=32)
CANVAS = (64, 96)


def write_split(root: Path) -> None:
    """Picture i has i % 3 objects of class i % 3, and a crowd; four of nine are not wide."""
    sizes = [(40 + number, 36) for number in range(WIDE)] + [(36, 36), (36, 40), (33, 48), (36, 44)]
    images = [picture(10 * number, *size) for number, size in enumerate(sizes)]
    objects = []
    for number in range(len(images)):
        for place in range(number % 3):
            kind = CATEGORIES[number % 3]["id"]
            box = (1 + 10 * place, 2 + number, 8, 11)
            objects.append(annotation(len(objects), 10 * number, kind, *box))
        crowd = annotation(len(objects), 10 * number, 3, 1, 1, 20, 20, iscrowd=1)
        objects.append(crowd)
    content = {"images": images, "categories": CATEGORIES, "annotations": objects}
    write(root / "annotations" / "instances_mine.json", content)
    write_pictures(root / "mine", images)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> CocoPictures:
    root = tmp_path_factory.mktemp("coco")
    write_split(root)
    return training_pictures(*split_paths(root, "mine"), masks=True)


def run(dataset) -> list[tuple[np.ndarray, ...]]:
    iterator = dataset.create_tuple_iterator(num_epochs=1, output_numpy=True)
    return [tuple(column.copy() for column in row) for row in iterator]


def train(pictures: CocoPictures, transform: TrainTransform = TRANSFORM, **changes):
    settings = dict(
        batch_size=2,
        shard=Shard(),
        seed=1,
        steps=10,
        num_parallel_workers=1,
        python_multiprocessing=False,
        canvas=CANVAS,
    )
    return training_batches(pictures, transform, **settings | changes)


def same(left, right) -> bool:
    return len(left) == len(right) and all(
        np.array_equal(a, b)
        for one, two in zip(left, right, strict=True)
        for a, b in zip(one, two, strict=True)
    )


@pytest.fixture(scope="module")
def reference(pictures: CocoPictures) -> list[tuple[np.ndarray, ...]]:
    return run(train(pictures))


def test_batches_are_of_one_shape_in_groups(pictures: CocoPictures, reference) -> None:
    dataset = train(pictures)
    assert dataset.get_col_names() == ["images", "boxes", "labels", "sizes", "masks"]
    assert dataset.get_dataset_size() == len(reference) == 10
    shapes = [images.shape for images, *_ in reference]
    for batch in (reference[:5], reference[5:]):  # an epoch: 5 wide pictures, 4 others
        assert sum(images.shape == (2, 3, 64, 96) for images, *_ in batch) == 3
        assert sum(images.shape == (2, 3, 96, 64) for images, *_ in batch) == 2
    assert shapes[:5] != shapes[5:] or not same(reference[:5], reference[5:])
    for images, boxes, labels, sizes, masks in reference:
        assert images.dtype == boxes.dtype == np.float32
        assert boxes.shape == (2, 2, 4) and labels.shape == (2, 2) and labels.dtype == np.int32
        assert sizes.shape == (2, 2) and sizes.dtype == np.int32
        assert masks.shape == (2, 2, *images.shape[2:]) and masks.dtype == np.uint8
    without = training_pictures(pictures.file.path, pictures.root, masks=False)
    assert train(without).get_col_names() == ["images", "boxes", "labels", "sizes"]


def test_each_picture_comes_with_its_own_objects(pictures: CocoPictures) -> None:
    """Against the transform, in the order of the epoch; no mirror, so that nothing is drawn."""
    transform = TrainTransform(**PLAIN, flip=0.0)
    wide = pictures.sizes[:, 1] > pictures.sizes[:, 0]
    batches = run(train(pictures, transform, max_objects=3))
    for epoch in range(2):
        order = epoch_batches(wide, 2, epoch, 1)
        assert order.shape == (5, 2) and set(order.ravel()) == set(range(9))
        for numbers, columns in zip(order, batches[5 * epoch :], strict=False):
            assert len(set(wide[numbers])) == 1
            for number, image, boxes, labels, size, masks in zip(numbers, *columns, strict=True):
                annotated = pictures.read(int(number))
                draw = transform.draw(*annotated.pixels.shape[:2], np.random.default_rng())
                height, width = size
                assert draw.size == (height, width)
                assert (image[:, :height, :width] == transform.image(annotated.pixels, draw)).all()
                assert (image[:, height:] == 0).all() and (image[:, :, width:] == 0).all()
                count = len(annotated.labels)
                assert count == number % 3 and (labels[count:] == -1).all()
                assert (labels[:count] == number % 3).all()
                assert (boxes[:count] == transform.boxes(annotated.boxes, draw)).all()
                assert (boxes[count:] == 0).all() and (masks[count:] == 0).all()
                expected = transform.masks(annotated.masks, draw)
                assert (masks[:count, :height, :width] == expected).all()
                assert masks[:count].sum() == expected.sum()


def test_what_is_padded_is_the_mean_colour(pictures: CocoPictures) -> None:
    transform = TrainTransform(img_scale=(64, 48), mean=(-1.0, -2.0, -3.0))
    for images, _, _, sizes, _ in run(train(pictures, transform, steps=3)):
        for image, (height, width) in zip(images, sizes, strict=True):
            assert (image[:, :height, :width] > 0).all()
            assert (image[:, height:] == 0).all() and (image[:, :, width:] == 0).all()


@pytest.mark.parametrize("processes", [False, True])
def test_workers_and_restarts_do_not_change_a_batch(pictures, reference, processes: bool) -> None:
    settings = dict(num_parallel_workers=2, python_multiprocessing=processes)
    assert same(reference, run(train(pictures, **settings)))
    # Within the first epoch of 5 batches, at its end, the last one.
    for start in (2,) if processes else (2, 5, 9):
        resumed = train(pictures, start_step=start, **settings)
        assert resumed.get_dataset_size() == 10 - start
        assert same(reference[start:], run(resumed))


def test_draws_depend_on_seed_rank_and_epoch(pictures: CocoPictures, reference) -> None:
    assert not same(reference, run(train(pictures, seed=2)))
    ranks = [run(train(pictures, batch_size=1, shard=Shard(rank, 2))) for rank in (0, 1)]
    flat = TrainTransform(**PLAIN, flip=0.0)
    joint = run(train(pictures, flat))
    halves = [run(train(pictures, flat, batch_size=1, shard=Shard(r, 2))) for r in (0, 1)]
    both = [
        tuple(np.concatenate(columns) for columns in zip(*pair, strict=True))
        for pair in zip(*halves, strict=True)
    ]
    assert same(joint, both)  # what one process would see
    flips = [not np.array_equal(a[0], b[0]) for a, b in zip(ranks[0], halves[0], strict=True)]
    assert any(flips) and not all(flips)


def test_groups_are_filled_up_from_their_own_beginning() -> None:
    groups = np.array([1, 0, 1, 1, 0, 1, 1])
    assert grouped_steps(groups, 4) == 3
    batches = epoch_batches(groups, 4, 0, 7)
    assert sorted(groups[batch].tolist() for batch in batches) == [[0] * 4, [1] * 4, [1] * 4]
    counts = np.bincount(batches.ravel(), minlength=7)
    assert counts[groups == 0].tolist() == [2, 2] and sorted(counts[groups == 1]) == [1, 1, 2, 2, 2]
    assert not np.array_equal(batches, epoch_batches(groups, 4, 1, 7))
    orders = [groups[epoch_batches(groups, 4, epoch, 7)[:, 0]].tolist() for epoch in range(12)]
    assert len(set(map(tuple, orders))) == 3  # batches of both kinds are mixed
    assert epoch_batches(np.array([0]), 3, 0, 0).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_objects": 1}, "max_objects: found 1 with a picture of 2 objects in "),
        (
            {"canvas": (32, 96)},
            "canvas: found 32 x 96 for pictures of up to 48 x 64 pixels, expect",
        ),
        ({"canvas": (64, 100)}, "canvas: found 64 x 100 for pictures of up to 48 x 64 pixels"),
    ],
)
def test_what_has_no_room(pictures: CocoPictures, changes: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        train(pictures, **changes)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("canvas", [None, CANVAS])
def test_evaluation_sees_every_picture_once(pictures, ranks: int, canvas) -> None:
    everything = evaluation_pictures(pictures.file.path, pictures.root)
    for rank in range(ranks):
        shard = Shard(rank, ranks)
        dataset = evaluation_batches(
            everything, EVALUATION, shard=shard, num_parallel_workers=2, canvas=canvas
        )
        assert dataset.get_col_names() == ["images", "sizes", "scale_factors", "numbers"]
        rows = run(dataset)
        assert [int(number[0]) for *_, number in rows] == list(range(rank, 9, ranks))
        for images, sizes, factors, (number,) in rows:
            pixels = everything.read(number).pixels
            height, width = pixels.shape[:2]
            place = canvas if canvas is None or width > height else canvas[::-1]
            expected, size = EVALUATION(pixels, place)
            assert images.shape == (1, *expected.shape) and (images[0] == expected).all()
            assert sizes.tolist() == [list(size)] and sizes.dtype == np.int32
            assert factors.dtype == np.float32
            ratios = np.array([size[1] / width, size[0] / height] * 2, np.float32)
            assert (factors[0] == ratios).all()
    with pytest.raises(UserError, match="found 9 pictures for 10 ranks, expected at least one"):
        evaluation_batches(everything, EVALUATION, shard=Shard(0, 10), num_parallel_workers=1)


@pytest.fixture
def spoilt(tmp_path: Path) -> tuple[CocoPictures, Path]:
    """A wide picture of the nine is cut short, in one of the others a mask cannot be drawn."""
    write_split(tmp_path)
    file = tmp_path / "annotations" / "instances_mine.json"
    text = file.read_text()
    polygon = text.index('"segmentation"', text.index('"image_id": 70'))
    end = text.index("]]", polygon) + 2
    code = '"segmentation": {"size": [48, 33], "counts": "0"}'
    write(file, text[:polygon] + code + text[end:])
    damaged = tmp_path / "mine" / "020.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    return training_pictures(*split_paths(tmp_path, "mine"), masks=True), damaged


@pytest.mark.parametrize("processes", [False, True])
def test_a_damaged_picture_stops_the_run_by_name(spoilt, processes: bool) -> None:
    pictures, damaged = spoilt
    with pytest.raises(RuntimeError) as error:
        run(train(pictures, batch_size=9, steps=2, python_multiprocessing=processes))
    said = str(worker_error(error.value))
    assert said.startswith(f"image {damaged} cannot be read: ") or said == (
        f"image {damaged.with_name('070.png')}: annotation 15 of {pictures.file.path}: found "
        "runs of 0 pixels, expected 1,584 in all"
    )
    everything = evaluation_pictures(pictures.file.path, pictures.root)
    with pytest.raises(RuntimeError) as error:
        run(evaluation_batches(everything, EVALUATION, shard=Shard(), num_parallel_workers=1))
    assert str(worker_error(error.value)).startswith(f"image {damaged} cannot be read: ")


def test_pictures_are_replaced_by_others_of_their_shape(spoilt, tmp_path: Path) -> None:
    pictures, damaged = spoilt
    log = tmp_path / "run" / "corrupt_images.txt"
    batches = run(train(pictures, corrupt_log=log, steps=15))
    found = CorruptImages(tmp_path / "run", pictures).found()
    assert found.keys() == {str(damaged), str(damaged.with_name("070.png"))}
    assert [len(images) for images, *_ in batches] == [2] * 15
    workers = {"num_parallel_workers": 2, "python_multiprocessing": True}
    again = run(train(pictures, corrupt_log=log, steps=15, start_step=7, **workers))
    assert same(batches[7:], again)
    with pytest.raises(UserError, match=r"found 2 of 9 training images .* check .*--images"):
        CorruptImages(tmp_path / "run", pictures).check()
