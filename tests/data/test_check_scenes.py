"""``python -m mindcv_poolformer.data check`` on folders of scenes."""

from __future__ import annotations

from pathlib import Path

import forked
import numpy as np
import pytest
from PIL import Image
from scripts import Ended

from mindcv_poolformer.data.segmentation.scenes import IGNORED, own_scenes


def check(folder: Path, *arguments: str) -> Ended:
    return forked.call(folder, ["-m", "mindcv_poolformer.data", "check", *arguments])


def write(path: Path, pixels: np.ndarray, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels.astype(np.uint8), mode="P" if palette else None)
    if palette:
        image.putpalette([255 - level for level in range(256) for _ in range(3)])
    image.save(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """20 scenes of train and 3 of val, labels grey or with a palette; four classes."""
    root = tmp_path / "data"
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 3)):
        for number in range(count):
            label = rng.choice([0, 1, 3, IGNORED], (6, 1 + number % 5))
            picture = rng.integers(0, 256, (*label.shape, 3))
            write(root / "images" / split / f"{number:02d}.jpg", picture)
            write(root / "annotations" / split / f"{number:02d}.png", label, palette=number % 2 > 0)
    (root / "classes.txt").write_text("sky\nsea\nsand\nground with grass\n")
    return root


def counted(root: Path, split: str, spoilt: set[str], zero: bool) -> list[list[int]]:
    """From the files alone: in how many labels, and on how many pixels, a class is."""
    counts = np.zeros((256, 2), int)
    for path in (root / "annotations" / split).glob("*.png"):
        if path.stem not in spoilt:
            values, times = np.unique(np.asarray(Image.open(path)), return_counts=True)
            counts[values] += np.stack([np.ones(len(times), int), times], axis=1)
    if not zero:
        return [*counts[:4].tolist(), counts[IGNORED].tolist()]
    files = [np.asarray(Image.open(p)) for p in (root / "annotations" / split).glob("*.png")]
    none = sum(bool(np.isin(x, (0, IGNORED)).any()) for x in files)
    return [*counts[1:5].tolist(), [none, (counts[0] + counts[IGNORED])[1]]]


def table(ended: Ended) -> dict[str, list[list[int]]]:
    """The lines of the table: scenes and pixels of each split, by class."""
    lines = ended.out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("class "))
    assert lines[start].split() == ["class", "train", "scenes", "train", "pixels"] + [
        "val",
        "scenes",
        "val",
        "pixels",
    ]
    rows = {}
    for line in lines[start + 1 : start + 6]:
        name, *numbers = line.rsplit(maxsplit=4)
        values = [int(number.replace(",", "")) for number in numbers]
        rows[name] = [values[:2], values[2:]]
    return rows


NAMES = ["0 sky", "1 sea", "2 sand", "3 ground with grass", "unlabelled"]


@pytest.mark.parametrize("zero", ["false", "true"])
def test_scenes_and_pixels_of_each_class_are_counted(data: Path, zero: str) -> None:
    (data / "images" / "test").mkdir()
    (data / "images" / "train" / "notes.txt").touch()
    ended = check(data.parent, "data", "--reduce_zero_label", zero, "--workers", "2")
    assert (ended.code, ended.err) == (0, "")
    rows = table(ended)
    assert list(rows) == NAMES
    for place, split in enumerate(("train", "val")):
        expected = counted(data, split, set(), zero == "true")
        assert [rows[name][place] for name in NAMES] == expected
    assert ended.out.splitlines()[:2] == [
        "data/images/test: found no data/annotations/test, so it is left out",
        "data/images/train: 1 file with other endings ignored",
    ]
    assert ended.out.splitlines()[-1] == (
        "data: 0 of 23 scenes cannot be used, with the 4 classes of classes.txt, "
        f"reduce_zero_label {zero}"
    )


def test_every_fault_takes_a_line(data: Path) -> None:
    pictures, labels = data / "images" / "train", data / "annotations" / "train"
    (labels / "00.png").unlink()
    (pictures / "01.jpg").unlink()
    (labels / "02.png").rename(labels / "02.tif")
    write(pictures / "03.png", np.zeros((6, 4, 3)))
    (pictures / "04.jpg").write_bytes(b"no image")
    write(labels / "05.png", np.zeros((5, 1)))
    write(labels / "06.png", np.full((6, 2), 4), palette=True)
    write(labels / "07.png", np.zeros((6, 3, 3)))
    (labels / "08.png").write_bytes((labels / "08.png").read_bytes()[:60])
    (labels / "09.png").unlink()
    (labels / "09.png").symlink_to("nowhere.png")
    ended = check(data.parent, "data", "--reduce_zero_label", "false")
    assert (ended.code, ended.err) == (1, "")
    eight_bits = "expected a PNG of 8 bits, grey or with a palette: a class index per pixel"
    expected = {
        "images/train/03.png": "found data/images/train/03.jpg beside it, expected names that "
        "differ in more than their ending",
        "images/train/00.jpg": "found no label for it, expected data/annotations/train/00.png",
        "annotations/train/01.png": "found no picture for it, expected data/images/train/01.jpg "
        "or .png",
        "annotations/train/02.tif": "found no PNG, expected 02.png, which loses nothing",
        "images/train/04.jpg": "is not in an image format that Pillow reads",
        "annotations/train/05.png": "found 1 x 5 pixels, expected 1 x 6, as in "
        "data/images/train/05.jpg",
        "annotations/train/06.png": "found the value 4, expected 0 to 3 for the 4 classes, or 255 "
        "for unlabelled",
        "annotations/train/07.png": f"found a PNG of colours (RGB), {eight_bits}",
        "annotations/train/08.png": "cannot be read: ",
        "annotations/train/09.png": "does not exist",
    }
    told = dict(line.split("\t") for line in ended.out.splitlines() if "\t" in line)
    assert list(told) == [f"data/{name}" for name in expected]
    for name, said in expected.items():
        assert told[f"data/{name}"].startswith(said)
    assert ended.out.splitlines()[-1].startswith("data: 10 of 24 scenes cannot be used, ")
    spoilt = {f"{number:02d}" for number in (0, 1, 2, *range(4, 10))}
    rows = table(ended)
    assert [rows[name][0] for name in NAMES] == counted(data, "train", spoilt, False)


def test_what_is_told_is_what_training_sees(data: Path) -> None:
    """A folder that the command finds in order is read to the end, and as many of each class."""
    scenes = own_scenes(data, "train", reduce_zero_label=False)
    pixels = sum(np.bincount(scenes.read(i)[1].ravel(), minlength=256) for i in range(len(scenes)))
    rows = table(check(data.parent, "data", "--reduce_zero_label", "false"))
    assert [rows[name][0][1] for name in NAMES] == [*pixels[:4].tolist(), pixels[IGNORED]]


def test_ade20k_is_told_by_its_layout(data: Path) -> None:
    (data / "classes.txt").unlink()
    write(data / "annotations" / "val" / "01.png", np.full((6, 2), 151))
    ended = check(data.parent, "data")
    assert ended.code == 1
    lines = ended.out.splitlines()
    assert lines[0] == (
        "data/annotations/val/01.png\tfound the value 151, expected 1 to 150 for the 150 classes, "
        "or 0 or 255 for unlabelled"
    )
    assert lines[2].split()[:2] == ["0", "wall"]
    assert lines[-1] == (
        "data: 1 of 23 scenes cannot be used, with the 150 classes of ADE20K, as there is no "
        "classes.txt"
    )


def test_a_split_without_labels_is_left_out(data: Path) -> None:
    write(data / "images" / "test" / "00.jpg", np.zeros((4, 4, 3)))
    (data / "annotations" / "test").mkdir()
    ended = check(data.parent, "data")
    assert (ended.code, ended.err) == (0, "")
    assert "data/annotations/test: found no image in the folder" in ended.out
    assert "; test is left out\n" in ended.out and "test scenes" not in ended.out


def test_images_beside_other_annotations_are_images(data: Path) -> None:
    """As in COCO, whose annotations are no pictures."""
    (data / "classes.txt").unlink()
    (data / "annotations").rename(data / "masks")
    (data / "annotations").mkdir()
    (data / "annotations" / "train.json").touch()
    ended = check(data.parent, "data")
    assert ended.out.startswith("data: 0 of 46 images cannot be read")


@pytest.mark.parametrize(
    ("spoil", "arguments", "said"),
    [
        (
            "annotations",
            [],
            "data: found no split that is in both images and annotations, expected images/<split> "
            "and annotations/<split>",
        ),
        (
            "classes.txt",
            ["--reduce_zero_label", "false"],
            "reduce_zero_label: found false with data, which has no classes.txt, expected true: in "
            "ADE20K 0 means unlabelled",
        ),
        (
            "images",
            ["--reduce_zero_label", "true"],
            "reduce_zero_label: found it with data, which holds no scenes, expected a folder of "
            "scenes: images/SPLIT and annotations/SPLIT",
        ),
    ],
)
def test_mistakes_take_one_line(data: Path, spoil: str, arguments: list[str], said: str) -> None:
    (data / spoil).rename(data / "elsewhere")
    ended = check(data.parent, "data", *arguments)
    assert (ended.code, ended.out, ended.err) == (1, "", f"error: {said}\n")
