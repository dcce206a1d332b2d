from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindcv_poolformer.data.loader import Shard, worker_error
from mindcv_poolformer.data.order import epoch_order
from mindcv_poolformer.data.segmentation.fitting import EvalTransform
from mindcv_poolformer.data.segmentation.loader import (
    dropout_scales,
    evaluation_scenes,
    training_scenes,
)
from mindcv_poolformer.data.segmentation.scenes import IGNORED, SceneFolder, scan_scenes
from mindcv_poolformer.data.segmentation.transforms import TrainTransform
from mindcv_poolformer.runtime.errors import UserError

SCENES = 7
MEAN, STD = (0.0,) * 3, (1.0,) * 3
RANDOM = TrainTransform(crop_size=(24, 32), img_scale=(64, 32), mean=MEAN, std=STD)
PLAIN = TrainTransform((16, 24), (64, 16), (1, 1), flip=0.0, mean=MEAN, std=STD)
EVALUATION = EvalTransform((64, 32), 32, MEAN, STD)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> SceneFolder:
    """Scene i, of 16 x (20 + i) pixels, is noise, with labels of its own in squares."""
    root = tmp_path_factory.mktemp("scenes")
    for number in range(SCENES):
        rng = np.random.default_rng(number)
        width = 20 + number
        picture = rng.integers(0, 256, (16, width, 3), dtype=np.uint8)
        label = rng.integers(0, 4, (4, 7), dtype=np.uint8).repeat(4, 0).repeat(4, 1)[:, :width]
        for kind, pixels in (("images", picture), ("annotations", label)):
            (root / kind / "training").mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / kind / "training" / f"{number}.png")
    return scan_scenes(root, "training", ["a", "b", "c"], reduce_zero_label=True)


def run(dataset) -> list[tuple[np.ndarray, ...]]:
    iterator = dataset.create_tuple_iterator(num_epochs=1, output_numpy=True)
    return [tuple(column.copy() for column in row) for row in iterator]


def train(scenes: SceneFolder, transform: TrainTransform = RANDOM, **changes):
    settings = dict(
        batch_size=2,
        shard=Shard(),
        seed=1,
        steps=8,
        num_parallel_workers=1,
        python_multiprocessing=False,
        dropout=(0.25, 5),
    )
    return training_scenes(scenes, transform, **settings | changes)


def same(left, right) -> bool:
    return len(left) == len(right) and all(
        np.array_equal(a, b)
        for one, two in zip(left, right, strict=True)
        for a, b in zip(one, two, strict=True)
    )


@pytest.fixture(scope="module")
def reference(scenes: SceneFolder) -> list[tuple[np.ndarray, ...]]:
    return run(train(scenes))


def test_batches_of_images_labels_and_dropout(scenes: SceneFolder, reference) -> None:
    dataset = train(scenes)
    assert dataset.get_col_names() == ["images", "labels", "dropout"]
    assert dataset.get_dataset_size() == len(reference) == 8
    for images, labels, dropout in reference:
        assert (images.shape, images.dtype) == ((2, 3, 24, 32), np.float32)
        assert (labels.shape, labels.dtype) == ((2, 24, 32), np.int32)
        assert set(np.unique(labels)) <= {0, 1, 2, IGNORED}
        assert (dropout.shape, dropout.dtype) == ((2, 5), np.float32)
    assert train(scenes, dropout=None).get_col_names() == ["images", "labels"]


def test_scenes_come_in_the_order_of_the_epoch(scenes: SceneFolder) -> None:
    """At ratio 1 the label is cut as it is, from a corner of the scene, and padded."""
    batches = run(train(scenes, PLAIN, steps=6, dropout=None))
    for epoch in range(2):
        order = epoch_order(SCENES, epoch, 1, shuffle=True)
        found = np.concatenate([labels for _, labels in batches[3 * epoch : 3 * epoch + 3]])
        for scene, label in zip(order[:6], found, strict=True):
            whole = scenes.read(int(scene))[1]
            width = min(whole.shape[1], 24)
            cuts = [whole[:, left : left + width] for left in range(whole.shape[1] - width + 1)]
            assert any((label[:, :width] == cut).all() for cut in cuts)
            assert (label[:, width:] == IGNORED).all()


def test_what_is_padded_is_the_mean_colour(scenes: SceneFolder) -> None:
    transform = TrainTransform((40, 48), (64, 16), (1, 1), mean=(-1.0, -2.0, -3.0), std=STD)
    for images, labels in run(train(scenes, transform, steps=3, dropout=None)):
        assert (images[:, :, 16:] == 0).all() and (images[:, :, :, 26:] == 0).all()
        assert (labels[:, 16:] == IGNORED).all() and (labels[:, :, 26:] == IGNORED).all()
        assert (images[:, :, :16, :20] > 0).all()


@pytest.mark.parametrize("processes", [False, True])
def test_workers_and_restarts_do_not_change_a_batch(scenes, reference, processes: bool) -> None:
    settings = dict(num_parallel_workers=2, python_multiprocessing=processes)
    assert same(reference, run(train(scenes, **settings)))
    # Within the first epoch of 3 batches, at its end, the last one.
    for start in (2,) if processes else (2, 3, 7):
        resumed = train(scenes, start_step=start, **settings)
        assert resumed.get_dataset_size() == 8 - start
        assert same(reference[start:], run(resumed))


def test_draws_depend_on_seed_rank_and_epoch(scenes: SceneFolder, reference) -> None:
    assert not same(reference, run(train(scenes, seed=2)))
    batches = [run(train(scenes, shard=Shard(rank, 2), steps=6, batch_size=1)) for rank in (0, 1)]
    images = [image.tobytes() for rows in batches for image, _, _ in rows]
    assert len(set(images)) == 12
    scales = [dropout.tobytes() for _, _, dropout in reference]
    assert len(set(scales)) > 4


def test_dropout_keeps_the_mean_of_each_channel() -> None:
    scales = dropout_scales(0.1, 128, 500, np.random.default_rng(0))
    assert (scales.shape, scales.dtype) == ((500, 128), np.float32)
    assert set(np.unique(scales)) == {0, np.float32(1 / 0.9)}
    assert abs((scales > 0).mean() - 0.9) < 0.005


def test_too_few_scenes(scenes: SceneFolder) -> None:
    with pytest.raises(UserError, match="training set has 7 images, expected at least 8"):
        train(scenes, batch_size=8)
    with pytest.raises(UserError, match="found 7 scenes for 8 ranks, expected at least one each"):
        evaluation_scenes(scenes, EVALUATION, shard=Shard(0, 8), num_parallel_workers=1)


@pytest.mark.parametrize("ranks", [1, 3])
def test_evaluation_sees_every_scene_once_at_its_own_size(scenes: SceneFolder, ranks: int) -> None:
    for rank in range(ranks):
        shard = Shard(rank, ranks)
        rows = run(evaluation_scenes(scenes, EVALUATION, shard=shard, num_parallel_workers=2))
        numbers = range(rank, SCENES, ranks)
        assert len(rows) == len(numbers)
        for number, (images, labels) in zip(numbers, rows, strict=True):
            picture, label = scenes.read(number)
            assert images.shape == (1, 3, 32, 64) and images.dtype == np.float32
            assert (images[0] == EVALUATION(picture)).all()
            assert labels.dtype == np.int32 and (labels[0] == label).all()


@pytest.mark.parametrize("processes", [False, True])
def test_a_damaged_label_stops_the_run_by_name(
    scenes: SceneFolder, tmp_path: Path, processes: bool
) -> None:
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(Path(scenes.labels[0]).read_bytes()[:60])
    broken = SceneFolder(
        tmp_path, scenes.classes, scenes.images, (str(damaged), *scenes.labels[1:]), True
    )
    for dataset in (
        train(broken, num_parallel_workers=2, batch_size=7, python_multiprocessing=processes),
        evaluation_scenes(broken, EVALUATION, shard=Shard(), num_parallel_workers=1),
    ):
        with pytest.raises(RuntimeError) as error:
            run(dataset)
        assert str(worker_error(error.value)).startswith(f"label {damaged} cannot be read: ")
