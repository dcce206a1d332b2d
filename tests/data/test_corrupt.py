from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindcv_poolformer.data.augment import RandAugment, TrainTransform
from mindcv_poolformer.data.corrupt import CorruptImages, SubstitutingReader
from mindcv_poolformer.data.folder import ImageFolder, scan_folder
from mindcv_poolformer.data.loader import Shard, training_dataset, worker_error
from mindcv_poolformer.data.mix import BatchTransform
from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.runtime.launch import World

MEAN, STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
PLAIN = TrainTransform(8, MEAN, scale=(1, 1), ratio=(1, 1), interpolation="bilinear", hflip=0.0)
RANDOM = TrainTransform(16, MEAN, rand_augment=RandAugment.parse("rand-m9-mstd0.5-inc1"))
SEED, IMAGES, EPOCHS = 1, 24, 3


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def bomb(path: Path) -> None:
    Image.new("1", (13_400, 13_400)).save(path, "PNG")  # 179.6 megapixels


def go_in_circles(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


# Image number → how to spoil it, and what is said of it.
DAMAGE: dict[int, tuple[Callable[[Path], object], str]] = {
    2: (truncate, "cannot be read: image file is truncated"),
    5: (lambda path: path.write_text("no image"), "is not in an image format"),
    6: (lambda path: path.write_bytes(b""), "is an empty file"),
    11: (bomb, "cannot be read: Image size (179560000 pixels) exceeds limit"),
    17: (go_in_circles, "cannot be read: [Errno 40] Too many levels of symbolic links"),
}


def write_folder(root: Path) -> ImageFolder:
    """Classes of one JPEG each, number i of colour 10 i."""
    for index in range(IMAGES):
        (root / f"{index:02d}").mkdir(parents=True)
        Image.new("RGB", (64, 64), (10 * index,) * 3).save(root / f"{index:02d}" / "image.jpg")
    return scan_folder(root)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ImageFolder:
    """The images with every kind of damage."""
    images = write_folder(tmp_path_factory.mktemp("images"))
    for number, (spoil, _) in DAMAGE.items():
        spoil(Path(images.paths[number]))
    return images


def train(
    folder: ImageFolder, corrupt_log: Path | None, transform: TrainTransform = PLAIN, **changes
) -> list[tuple[np.ndarray, ...]]:
    settings = {
        "batch_size": 4,
        "shard": Shard(),
        "seed": SEED,
        "shuffle": False,
        "drop_remainder": True,
        "epochs": EPOCHS,
        "num_parallel_workers": 1,
        "python_multiprocessing": False,
    }
    batch_transform = BatchTransform(len(folder.classes), MEAN, STD)
    dataset = training_dataset(
        folder, transform, batch_transform, corrupt_log=corrupt_log, **settings | changes
    )
    iterator = dataset.create_tuple_iterator(num_epochs=1, output_numpy=True)
    return [tuple(column.copy() for column in row) for row in iterator]


def seen(batches: list[tuple[np.ndarray, ...]]) -> list[int]:
    """The images by number, told by the colour, which must agree with the target."""
    numbers = []
    for images, targets in batches:
        found = np.rint(images.mean(axis=(1, 2, 3)) / 10).astype(int)
        assert np.abs(images - 10 * found[:, None, None, None]).max() <= 2  # JPEG's rounding
        np.testing.assert_array_equal(targets, np.eye(IMAGES)[found])
        numbers += found.tolist()
    return numbers


def substitute(epoch: int, image: int) -> int:
    """The image that stands in for another, drawn anew while it is damaged itself."""
    rng = np.random.default_rng([4, SEED, epoch, image])
    while image in DAMAGE:
        image = int(rng.integers(IMAGES))
    return image


EXPECTED = [substitute(epoch, image) for epoch in range(EPOCHS) for image in range(IMAGES)]


def same(left: list[tuple[np.ndarray, ...]], right: list[tuple[np.ndarray, ...]]) -> bool:
    return len(left) == len(right) and all(
        np.array_equal(a, b)
        for one, two in zip(left, right, strict=True)
        for a, b in zip(one, two, strict=True)
    )


def test_every_kind_of_damage_is_replaced_and_listed(folder: ImageFolder, tmp_path: Path) -> None:
    log = tmp_path / "run" / "corrupt_images.txt"
    assert seen(train(folder, log)) == EXPECTED
    assert len(set(EXPECTED[:IMAGES])) < IMAGES
    for number in DAMAGE:  # not the same substitute in every epoch
        assert len({EXPECTED[number + epoch * IMAGES] for epoch in range(EPOCHS)}) > 1
    lines = [line.split("\t") for line in log.read_text().splitlines()]
    assert len(lines) == len(DAMAGE)
    found = CorruptImages(log.parent, folder).found()
    assert found == dict(lines)
    assert found.keys() == {folder.paths[number] for number in DAMAGE}
    for number, (_, said) in DAMAGE.items():
        assert found[folder.paths[number]].startswith(said)


def test_some_substitutes_are_damaged_themselves() -> None:
    first = [
        int(np.random.default_rng([4, SEED, epoch, image]).integers(IMAGES))
        for epoch in range(EPOCHS)
        for image in DAMAGE
    ]
    assert set(first) & set(DAMAGE)  # else the tests here could not tell


@pytest.mark.parametrize("processes", [False, True])
def test_workers_and_a_restart_change_nothing(
    folder: ImageFolder, tmp_path: Path, processes: bool
) -> None:
    reference = train(folder, tmp_path / "one.txt", RANDOM, shuffle=True)
    workers = {"num_parallel_workers": 2, "python_multiprocessing": processes, "shuffle": True}
    assert same(reference, train(folder, tmp_path / "two.txt", RANDOM, **workers))
    resumed = train(folder, tmp_path / "resumed.txt", RANDOM, start_step=7, **workers)
    assert same(reference[7:], resumed)
    lists = [(tmp_path / f"{name}.txt").read_text() for name in ("one", "two", "resumed")]
    assert len({frozenset(text.splitlines()) for text in lists}) == 1


def test_two_ranks_see_together_what_one_process_sees(folder: ImageFolder, tmp_path: Path) -> None:
    ranks = [
        np.array(seen(train(folder, tmp_path / "list", batch_size=2, shard=Shard(rank, 2))))
        for rank in range(2)
    ]
    joint = np.concatenate([numbers.reshape(-1, 2) for numbers in ranks], axis=1)
    assert joint.ravel().tolist() == EXPECTED
    assert len(CorruptImages(tmp_path, folder).found()) == 0
    (tmp_path / "list").rename(tmp_path / "corrupt_images.txt")
    assert len(CorruptImages(tmp_path, folder).found()) == len(DAMAGE)


def test_images_without_damage_are_as_they_were(tmp_path: Path) -> None:
    images = write_folder(tmp_path / "images")
    log = tmp_path / "corrupt_images.txt"
    assert same(train(images, None, RANDOM), train(images, log, RANDOM))
    assert not log.exists()


@pytest.mark.parametrize("processes", [False, True])
def test_damage_everywhere_stops_the_run_at_once(tmp_path: Path, processes: bool) -> None:
    images = write_folder(tmp_path / "images")
    for path in images.paths:
        Path(path).write_bytes(b"")
    workers = {"num_parallel_workers": 2, "python_multiprocessing": processes}
    with pytest.raises(RuntimeError) as error:
        train(images, tmp_path / "list.txt", **workers)
    found = worker_error(error.value)
    assert "found 11 images in a row that cannot be read, the last " in str(found)
    assert f"look with python -m mindcv_poolformer.data check {images.root}" in str(found)


def test_a_list_that_cannot_be_written_is_named(folder: ImageFolder, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    reader = SubstitutingReader(folder, folder.read, SEED, tmp_path / "file" / "corrupt_images.txt")
    with pytest.raises(UserError, match="file/corrupt_images.txt: cannot be written: "):
        reader.open(0, min(DAMAGE))


def listed(tmp_path: Path, total: int, corrupt: int) -> CorruptImages:
    """What the main process sees of a training set with some empty files."""
    root = tmp_path / "images"
    (root / "0").mkdir(parents=True)
    for number in range(total):
        (root / "0" / f"{number:03d}.png").touch()
    whole = Path(scan_folder(root).paths[-1])
    Image.new("RGB", (4, 4)).save(whole)
    paths = (*scan_folder(root).paths[:corrupt], *[str(whole)] * (total - corrupt))
    images = ImageFolder(root, ("0",), paths, np.zeros(total, np.int32))
    for _ in range(2):  # two workers, each of which meets each of them twice
        reader = SubstitutingReader(images, images.read, SEED, tmp_path / "corrupt_images.txt")
        for number in (*range(corrupt), *range(corrupt)):
            opened, instead = reader.open(0, number)
            assert opened.size == (4, 4) and instead >= corrupt
    return CorruptImages(tmp_path, images)


@pytest.mark.parametrize(("total", "corrupt"), [(100, 0), (100, 1), (199, 1), (300, 3)])
def test_up_to_one_in_a_hundred_is_tolerated(tmp_path: Path, total: int, corrupt: int) -> None:
    images = listed(tmp_path, total, corrupt)
    assert images.check() == corrupt == len(images.found())
    text = (tmp_path / "corrupt_images.txt").read_text() if corrupt else ""
    assert text.count("\n") == 2 * corrupt  # once for each worker
    path = tmp_path / "corrupt_images.txt"
    said = {
        0: [],
        1: [f"1 training image was corrupt and replaced by others: {path}"],
        3: [f"3 training images were corrupt and replaced by others: {path}"],
    }
    assert images.summary() == said[corrupt]


@pytest.mark.parametrize(("total", "corrupt", "share"), [(99, 1, "1.01 %"), (150, 4, "2.67 %")])
def test_more_than_one_in_a_hundred_stops(
    tmp_path: Path, total: int, corrupt: int, share: str
) -> None:
    with pytest.raises(UserError) as error:
        listed(tmp_path, total, corrupt).check()
    assert str(error.value) == (
        f"on_corrupt: found {corrupt} of {total} training images ({share}) that cannot be read, "
        f"listed in {tmp_path}/corrupt_images.txt, expected at most 1 %; "
        f"look with python -m mindcv_poolformer.data check {tmp_path}/images"
    )


def test_repaired_images_do_not_stop_a_run_that_goes_on(tmp_path: Path) -> None:
    images = listed(tmp_path, 150, 4)
    for path in list(images.found())[:3]:
        Image.new("RGB", (4, 4)).save(path)
    elsewhere = scan_folder(os.path.relpath(tmp_path / "images"))  # `data_dir` in other words
    images = CorruptImages(tmp_path, elsewhere)
    assert images.check() == 1
    assert len(images.found()) == 1
    assert images.summary()[0].startswith("1 training image was")


def test_a_start_removes_the_list_of_an_earlier_one(tmp_path: Path) -> None:
    images = listed(tmp_path, 100, 3)
    images.start_anew(World())
    assert images.found() == {} and images.check() == 0
    images.start_anew(World())
    assert not (tmp_path / "corrupt_images.txt").exists()


def test_names_of_any_bytes_are_listed(tmp_path: Path) -> None:
    names = [b"a\xff.png", "ä\u2028.png".encode(), b"tab\there.png"]
    (tmp_path / "images" / "0").mkdir(parents=True)
    for name in (*names, b"z.png"):
        Image.new("L", (4, 4)).save(os.fsencode(tmp_path / "images" / "0") + b"/" + name)
    images = scan_folder(tmp_path / "images")
    spoilt = [path for path in images.paths if not path.endswith("z.png")]
    for path in spoilt:
        Path(path).write_bytes(b"")
    reader = SubstitutingReader(images, images.read, SEED, tmp_path / "corrupt_images.txt")
    for number in range(len(images)):
        reader.open(0, number)
    found = CorruptImages(tmp_path, images).found()
    assert found == dict.fromkeys(spoilt, "is an empty file") and len(spoilt) == 3
