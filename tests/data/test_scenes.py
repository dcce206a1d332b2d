from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindcv_poolformer.data.segmentation import ade20k
from mindcv_poolformer.data.segmentation.scenes import (
    IGNORED,
    ade20k_scenes,
    own_scenes,
    read_label,
)
from mindcv_poolformer.runtime.errors import UserError

VALUES = np.array([[0, 1, 2], [3, 255, 0]], np.uint8)


def write(path: Path, image: Image.Image | bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        image.save(path)
    return path


def palette_image(values: np.ndarray) -> Image.Image:
    """Of colours that, as greys, would be other numbers than their indices."""
    image = Image.fromarray(values, mode="P")
    image.putpalette([255 - level for level in range(256) for _ in range(3)])
    return image


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two scenes: a JPEG with a grey label, a PNG in a folder with a palette; three classes."""
    write(tmp_path / "classes.txt", b"sky\n sea \nsand\n\n")
    picture = Image.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 10)
    write(tmp_path / "images" / "training" / "b.jpg", picture)
    write(tmp_path / "images" / "training" / "a" / "1.PNG", picture)
    write(tmp_path / "annotations" / "training" / "b.png", Image.fromarray(VALUES))
    write(tmp_path / "annotations" / "training" / "a" / "1.png", palette_image(VALUES))
    return tmp_path


def test_pictures_are_paired_with_their_labels(root: Path) -> None:
    write(root / "images" / "training" / ".hidden.jpg")
    write(root / "annotations" / "training" / "notes.txt")
    (root / "images" / "training" / "loop").symlink_to(root)
    scenes = own_scenes(root, "training", reduce_zero_label=True)
    assert scenes.classes == ("sky", "sea", "sand")
    assert [Path(p).relative_to(root / "images").as_posix() for p in scenes.images] == [
        "training/a/1.PNG",
        "training/b.jpg",
    ]
    assert len(scenes) == 2
    assert scenes.notes == (
        f"{root / 'images' / 'training'}: 1 hidden or system name (.hidden.jpg), "
        "1 link to a folder that it is in (loop) ignored",
        f"{root / 'annotations' / 'training'}: 1 file with other endings ignored",
    )
    expected = [[IGNORED, 0, 1], [2, IGNORED, IGNORED]]
    for index in range(2):
        picture, label = scenes.read(index)
        assert label.tolist() == expected and label.dtype == np.uint8
        assert picture.shape == (2, 3, 3) and picture.dtype == np.uint8
    assert scenes.read(0)[0].ravel().tolist() == list(range(0, 180, 10))  # red first


def test_labels_as_they_are(root: Path) -> None:
    (root / "classes.txt").write_text("sky\nsea\nsand\nground")
    scenes = own_scenes(root, "training", reduce_zero_label=False)
    assert scenes.read(0)[1].tolist() == VALUES.tolist() == scenes.read(1)[1].tolist()


def test_ade20k_needs_no_list_of_classes(root: Path) -> None:
    (root / "classes.txt").unlink()
    scenes = ade20k_scenes(root, "training")
    assert scenes.classes == ade20k.names()
    assert scenes.reduce_zero_label
    names = ade20k.names()
    assert len(set(names)) == 150
    assert (names[0], names[12], names[149]) == ("wall", "person", "flag")
    colours = ade20k.colours()
    assert (colours.shape, colours.dtype) == ((150, 3), np.uint8)
    assert len(np.unique(colours, axis=0)) == 149  # as published, two share one
    assert colours[[0, 2, 149]].tolist() == [[120, 120, 120], [6, 230, 230], [92, 0, 255]]


def complaint(root: Path) -> str:
    """What is said of the folder, or of the first scene that cannot be read."""
    with pytest.raises(UserError) as error:
        scenes = own_scenes(root, "training", reduce_zero_label=True)
        for index in range(len(scenes)):
            scenes.read(index)
    said = str(error.value)
    assert "\n" not in said and str(root) in said
    return said.replace(str(root), "ROOT")


def test_a_missing_partner_is_named(root: Path) -> None:
    label = root / "annotations" / "training" / "b.png"
    label.rename(root / "annotations" / "training" / "c.png")
    assert complaint(root) == (
        "image ROOT/images/training/b.jpg: found no label for it, "
        "expected ROOT/annotations/training/b.png"
    )
    (root / "images" / "training" / "b.jpg").unlink()
    assert complaint(root) == (
        "label ROOT/annotations/training/c.png: found no picture for it, "
        "expected ROOT/images/training/c.jpg or .png"
    )


def test_names_that_differ_by_their_ending_alone(root: Path) -> None:
    write(root / "images" / "training" / "b.png")
    assert complaint(root) == (
        "image ROOT/images/training/b.png: found ROOT/images/training/b.jpg beside it, expected "
        "names that differ in more than their ending"
    )


def test_folders_that_are_missing_or_empty(root: Path) -> None:
    training = root / "annotations" / "training"
    training.rename(root / "elsewhere")
    assert complaint(root) == (
        "ROOT/annotations/training: found no such folder, "
        "expected the annotations of the training split"
    )
    training.mkdir()
    assert complaint(root).startswith("ROOT/annotations/training: found no image in the folder")
    training.rmdir()
    training.touch()
    assert "training: found a file, expected the annotations" in complaint(root)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "found No such file or directory, expected a class name a line"),
        (b"", "found an empty file, expected a class name a line"),
        (b"sky\n\nsea\n", "found line 2 empty, expected the name of a class"),
        (b"sky\nsea\nsky\n", "found sky twice, expected names that differ"),
        (b"sk\xff", "found bytes that are not UTF-8, expected a class name a line"),
    ],
)
def test_lists_of_classes_that_cannot_be_used(root: Path, content: bytes, said: str) -> None:
    (root / "classes.txt").unlink()
    if content is not None:
        (root / "classes.txt").write_bytes(content)
    assert complaint(root) == f"ROOT/classes.txt: {said}"


def test_more_classes_than_a_label_has_room_for(root: Path) -> None:
    (root / "classes.txt").write_text("\n".join(map(str, range(255))))
    assert complaint(root) == "ROOT: found 255 classes, expected 1 to 254"
    assert len(own_scenes(root, "training", reduce_zero_label=False).classes) == 255


EIGHT_BITS = "expected a PNG of 8 bits, grey or with a palette: a class index per pixel"
GREY = Image.fromarray(VALUES)


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (GREY.convert("RGB"), f": found a PNG of colours (RGB), {EIGHT_BITS}"),
        (GREY.convert("RGBA"), f": found a PNG of colours (RGBA), {EIGHT_BITS}"),
        (GREY.convert("1"), f": found a PNG of 1 bit, {EIGHT_BITS}"),
        (Image.fromarray(VALUES.astype(np.uint16)), f": found a PNG of 16 bits, {EIGHT_BITS}"),
        (
            Image.fromarray(VALUES + 1),
            ": found the value 4, expected 1 to 3 for the 3 classes, or 0 or 255 for unlabelled",
        ),
        (
            Image.fromarray(VALUES[:, :2].copy()),
            ": found 2 x 2 pixels, expected 3 x 2, as in ROOT/images/training/b.jpg",
        ),
        (b"", " is not in an image format that Pillow reads"),
        (b"no image", " is not in an image format that Pillow reads"),
    ],
)
def test_labels_that_cannot_be_used(root: Path, label: Image.Image | bytes, said: str) -> None:
    write(root / "annotations" / "training" / "b.png", label)
    assert complaint(root) == f"label ROOT/annotations/training/b.png{said}"


def test_labels_that_lose_something(root: Path) -> None:
    path = root / "annotations" / "training" / "b.png"
    GREY.save(path, format="JPEG")
    assert complaint(root) == (
        f"label ROOT/annotations/training/b.png: found a JPEG of 8-bit grey, {EIGHT_BITS}"
    )
    path.rename(path.with_suffix(".jpg"))
    assert complaint(root) == (
        "label ROOT/annotations/training/b.jpg: found no PNG, expected b.png, which loses nothing"
    )


def test_damaged_files(root: Path) -> None:
    label = root / "annotations" / "training" / "b.png"
    whole = label.read_bytes()
    label.write_bytes(whole[:50])
    assert complaint(root).startswith("label ROOT/annotations/training/b.png cannot be read: ")
    label.write_bytes(whole)
    (root / "images" / "training" / "b.jpg").write_bytes(b"no image")
    assert complaint(root).startswith("image ROOT/images/training/b.jpg is not in an image format")
    (root / "images" / "training" / "b.jpg").unlink()
    (root / "images" / "training" / "b.jpg").symlink_to(root / "nowhere")
    assert complaint(root) == "image ROOT/images/training/b.jpg does not exist"


def test_values_beyond_the_classes_without_the_reduction(tmp_path: Path) -> None:
    path = write(tmp_path / "label.png", GREY)
    assert read_label(path, 4, False).tolist() == VALUES.tolist()
    with pytest.raises(UserError, match="value 3, expected 0 to 2 for the 3 classes, or 255 for"):
        read_label(path, 3, False)
