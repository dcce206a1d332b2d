"""Scenes of which the picture or the label cannot be read, in training with on_corrupt: skip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindcv_poolformer.data.corrupt import CorruptImages
from mindcv_poolformer.data.loader import Shard
from mindcv_poolformer.data.order import epoch_order
from mindcv_poolformer.data.segmentation.loader import training_scenes
from mindcv_poolformer.data.segmentation.scenes import SceneFolder, scan_scenes
from mindcv_poolformer.data.segmentation.transforms import TrainTransform
from mindcv_poolformer.runtime.errors import UserError

SCENES, EPOCHS, SEED = 20, 3, 1
SHAPE = (16, 24)
MEAN, STD = (0.0,) * 3, (1.0,) * 3
WHOLE = TrainTransform(
    SHAPE, SHAPE, (1, 1), cat_max_ratio=1.0, flip=0.0, photometric=False, mean=MEAN, std=STD
)
RANDOM = TrainTransform((12, 12), (64, 32), mean=MEAN, std=STD)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def label_of(values: object) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(np.array(values, np.uint8)).save(path)


# Number of the scene → which of its files, how to spoil it, what is said of it.
DAMAGE: dict[int, tuple[str, Callable[[Path], object], str]] = {
    2: ("images", cut, "cannot be read: "),
    5: ("annotations", lambda path: path.write_bytes(b""), "is not in an image format that Pillow"),
    6: ("annotations", label_of(np.zeros((16, 23))), "found 23 x 16 pixels, expected 24 x 16, as"),
    11: ("annotations", label_of(np.full(SHAPE, 20)), "found the value 20, expected 0 to 19 for"),
    17: ("annotations", label_of(np.zeros((*SHAPE, 3))), "found a PNG of colours (RGB), expected"),
}


def write_scenes(root: Path) -> SceneFolder:
    """Scene i is of colour 10 i, and all of it of class i."""
    for kind, step in (("images", 10), ("annotations", 1)):
        (root / kind / "train").mkdir(parents=True)
        for number in range(SCENES):
            channels = (3,) if kind == "images" else ()
            pixels = np.full((*SHAPE, *channels), step * number, np.uint8)
            Image.fromarray(pixels).save(root / kind / "train" / f"{number:02d}.png")
    names = [f"class{number}" for number in range(SCENES)]
    return scan_scenes(root, "train", names, reduce_zero_label=False)


def spoil(scenes: SceneFolder) -> dict[str, str]:
    """Damage some; give the beginning of what is said of each file."""
    said = {}
    for number, (kind, damage, reason) in DAMAGE.items():
        path = (scenes.images if kind == "images" else scenes.labels)[number]
        damage(Path(path))
        said[path] = reason
    return said


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> tuple[SceneFolder, dict[str, str]]:
    scenes = write_scenes(tmp_path_factory.mktemp("scenes"))
    return scenes, spoil(scenes)


def train(scenes: SceneFolder, log: Path, transform: TrainTransform = WHOLE, **changes):
    settings = {
        "batch_size": 4,
        "shard": Shard(),
        "seed": SEED,
        "steps": EPOCHS * SCENES // 4,
        "num_parallel_workers": 1,
        "python_multiprocessing": False,
    }
    dataset = training_scenes(scenes, transform, corrupt_log=log, **settings | changes)
    iterator = dataset.create_tuple_iterator(num_epochs=1, output_numpy=True)
    return [tuple(column.copy() for column in row) for row in iterator]


def seen(batches: list[tuple[np.ndarray, ...]]) -> list[int]:
    """The scenes by number, told by the colour, with which the label must agree."""
    numbers: list[int] = []
    for images, labels in batches:
        found = labels[:, 0, 0]
        assert (labels == found[:, None, None]).all()
        assert (images == 10 * found[:, None, None, None]).all()
        numbers += found.tolist()
    return numbers


def substitute(epoch: int, scene: int) -> int:
    """The scene that stands in for another, drawn anew while it is damaged itself."""
    rng = np.random.default_rng([4, SEED, epoch, scene])
    while scene in DAMAGE:
        scene = int(rng.integers(SCENES))
    return scene


EXPECTED = [
    substitute(epoch, int(scene))
    for epoch in range(EPOCHS)
    for scene in epoch_order(SCENES, epoch, SEED, shuffle=True)
]


def same(left, right) -> bool:
    return len(left) == len(right) and all(
        np.array_equal(a, b)
        for one, two in zip(left, right, strict=True)
        for a, b in zip(one, two, strict=True)
    )


def listed(path: Path) -> dict[str, str]:
    return dict(line.split("\t") for line in path.read_text().splitlines())


def test_pictures_and_labels_are_replaced_together_and_listed(spoilt, tmp_path: Path) -> None:
    scenes, said = spoilt
    assert seen(train(scenes, tmp_path / "run" / "corrupt_images.txt")) == EXPECTED
    found = CorruptImages(tmp_path / "run", scenes).found()
    assert found == listed(tmp_path / "run" / "corrupt_images.txt")
    assert found.keys() == said.keys()
    assert [path for path, reason in said.items() if not found[path].startswith(reason)] == []


def test_workers_and_a_restart_change_no_batch(spoilt, tmp_path: Path) -> None:
    scenes, said = spoilt
    reference = train(scenes, tmp_path / "one", RANDOM)
    workers = {"num_parallel_workers": 2, "python_multiprocessing": True}
    assert same(reference[7:], train(scenes, tmp_path / "two", RANDOM, start_step=7, **workers))
    assert listed(tmp_path / "one").keys() == listed(tmp_path / "two").keys() == said.keys()


def test_two_ranks_see_what_one_sees(spoilt, tmp_path: Path) -> None:
    scenes, said = spoilt
    log = tmp_path / "corrupt_images.txt"
    ranks = [
        np.array(seen(train(scenes, log, batch_size=2, shard=Shard(rank, 2)))) for rank in range(2)
    ]
    joint = np.concatenate([numbers.reshape(-1, 2) for numbers in ranks], axis=1)
    assert joint.ravel().tolist() == EXPECTED
    assert CorruptImages(tmp_path, scenes).found().keys() == said.keys()


def test_too_many_stop_until_they_are_repaired(tmp_path: Path) -> None:
    """One in twenty is too many; a label is repaired by its picture's size, too."""
    scenes = write_scenes(tmp_path / "data")
    Image.new("RGB", (23, 16)).save(scenes.images[3])
    log = tmp_path / "corrupt_images.txt"
    train(scenes, log)
    with pytest.raises(UserError) as error:
        CorruptImages(tmp_path, scenes).check()
    assert str(error.value) == (
        "on_corrupt: found 1 of 20 training images (5.00 %) that cannot be read, listed in "
        f"{log}, expected at most 1 %; look with python -m mindcv_poolformer.data check "
        f"{tmp_path}/data --reduce_zero_label false"
    )
    Image.new("RGB", (24, 16)).save(scenes.images[3])
    images = CorruptImages(tmp_path, scenes)
    assert images.check() == 0 and images.summary() == []
