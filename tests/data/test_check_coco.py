"""``python -m mindcv_poolformer.data check`` on COCO's layout and on files of its format."""

from __future__ import annotations

import copy
from pathlib import Path

import forked
import pytest
from coco_files import CATEGORIES, annotation, picture, write, write_pictures
from PIL import Image
from scripts import Ended

IMAGES = [picture(number, 40 + number, 36) for number in range(1, 6)]
OBJECTS = [
    annotation(1, 1, 1, 1, 1, 10, 10),
    annotation(2, 1, 1, 5, 5, 10, 10),
    annotation(3, 2, 3, 1, 1, 10, 10),
    annotation(4, 3, 1, 1, 1, 10, 10),
    annotation(5, 3, 1, 1, 1, 10, 10, iscrowd=1),
    annotation(6, 4, 8, 1, 1, 10, 10),
]
CONTENT = {"images": IMAGES, "categories": CATEGORIES, "annotations": OBJECTS}


def check(folder: Path, *arguments: str) -> Ended:
    return forked.call(folder, ["-m", "mindcv_poolformer.data", "check", *arguments])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five pictures of train2017, of them three with objects, and two of val2017."""
    root = tmp_path / "data"
    val = CONTENT | {"images": IMAGES[:2], "annotations": OBJECTS[2:3]}
    for split, content in (("train2017", CONTENT), ("val2017", val)):
        write(root / "annotations" / f"instances_{split}.json", content)
        write_pictures(root / split, content["images"])
    return root


def test_pictures_and_objects_of_each_class_are_counted(data: Path) -> None:
    write(data / "annotations" / "instances_test2017.json", CONTENT)
    ended = check(data.parent, "data", "--workers", "2")
    assert (ended.code, ended.err) == (0, "")
    file = "data/annotations/instances_{}2017.json: "
    lines = [line.split() for line in ended.out.splitlines()[-5:-1]]
    assert ended.out.splitlines()[:-5] == [
        file.format("test") + "found no data/test2017, so it is left out",
        file.format("train") + "objects left out: 1 of other categories, 1 marked as crowd",
        file.format("train") + "pictures left out: 2 without an object",
        file.format("val") + "pictures left out: 1 without an object",
    ]
    split = ["{}2017", "pictures", "{}2017", "objects"]
    heads = [word.format(name) for name in ("train", "val") for word in split]
    assert lines == [
        ["class", *heads],
        ["0", "car", "1", "1", "1", "1"],
        ["1", "person", "2", "3", "0", "0"],
        ["2", "brush", "0", "0", "0", "0"],
    ]
    assert ended.out.splitlines()[-1] == (
        "data: 0 of 7 pictures cannot be used, 0 faults in 2 files of annotations"
    )


def test_every_fault_takes_a_line(data: Path) -> None:
    train = data / "train2017"
    (train / "001.png").unlink()
    (train / "002.png").write_bytes(b"no image")
    Image.new("RGB", (36, 43)).save(train / "003.png")
    content = copy.deepcopy(CONTENT)
    content["annotations"][5]["segmentation"] = {"size": [36, 44], "counts": "0"}
    file = write(data / "annotations" / "instances_train2017.json", content)
    content = copy.deepcopy(CONTENT)
    del content["annotations"][0]["bbox"]
    content["annotations"][2]["image_id"] = 77
    write(data / "annotations" / "instances_val2017.json", content)
    ended = check(data.parent, "data")
    assert (ended.code, ended.err) == (1, "")
    name, of_val = f"data/annotations/{file.name}", "data/annotations/instances_val2017.json"
    told = [line.split("\t") for line in ended.out.splitlines() if "\t" in line]
    assert told == [
        [
            of_val,
            "picture 1, annotation 1: found no bbox, expected four numbers: x, y, width, height",
        ],
        [of_val, "annotation 3: found image_id 77, expected that of a picture"],
        ["data/train2017/001.png", "does not exist"],
        ["data/train2017/002.png", "is not in an image format that Pillow reads"],
        ["data/train2017/003.png", f"found 36 x 43 pixels, expected 43 x 36, as in {name}"],
        [
            "data/train2017/004.png",
            f"annotation 6 of {name}: found runs of 0 pixels, expected 1,584 in all",
        ],
    ]
    assert ended.out.splitlines()[-1] == (
        "data: 4 of 5 pictures cannot be used, 2 faults in 2 files of annotations"
    )


@pytest.mark.parametrize("place", ["beside", "as in COCO", "elsewhere"])
def test_a_file_of_ones_own(data: Path, place: str) -> None:
    """With boxes alone, as many programs export them, and classes of one's own."""
    content = copy.deepcopy(CONTENT)
    for row in content["annotations"]:
        row["segmentation"] = []
    where = {
        "beside": "mine/_annotations.coco.json",
        "as in COCO": "annotations/instances_mine.json",
        "elsewhere": "labels/boxes.json",
    }[place]
    write(data / where, content)
    write_pictures(data / "mine", IMAGES)
    words = ["--images", "data/mine"] if place == "elsewhere" else []
    ended = check(data.parent, f"data/{where}", *words)
    assert (ended.code, ended.err) == (0, "")
    assert (
        f"data/{where}: 4 objects of 4 without an outline: boxes can be trained on, masks cannot\n"
    ) in ended.out
    assert ended.out.splitlines()[-1] == (
        f"data/{where}: 0 of 5 pictures cannot be used, 0 faults in 1 file of annotations"
    )


def test_a_file_without_annotations_is_for_a_test(data: Path) -> None:
    file = write(data / "train2017" / "test.json", CONTENT | {"annotations": []})
    ended = check(data.parent, "data/train2017/test.json")
    assert (ended.code, ended.err) == (0, "")
    assert f"{file.name}: found no picture to train on, expected some with objects" in ended.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["data", "--images", "data"], "images: found it with data, expected a file of annotat"),
        (
            ["data", "--reduce_zero_label", "true"],
            "reduce_zero_label: found it with data, which holds no scenes, expected a folder of "
            "scenes: images/SPLIT and annotations/SPLIT",
        ),
        (
            ["data/annotations/instances_train2017.json", "--images", "none"],
            "none: found no such folder, expected the pictures of data/annotations/instances_tr",
        ),
        (["data/none.json"], "data/none.json: found no such folder, expected a folder of images"),
        (
            ["alone"],
            "alone: found no pictures of train2017, expected a folder SPLIT for each "
            "annotations/instances_SPLIT.json",
        ),
    ],
)
def test_mistakes_take_one_line(data: Path, arguments: list[str], said: str) -> None:
    write(data.parent / "alone" / "annotations" / "instances_train2017.json", CONTENT)
    ended = check(data.parent, *arguments)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith(f"error: {said}") and ended.err.count("\n") == 1
