"""Files of COCO's layout: what is read, what is left out, and what is said of bad ones."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_files import CATEGORIES, annotation, picture, write, write_pictures
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from mindcv_poolformer.config import DataConfig, Recipe
from mindcv_poolformer.data.detection.annotation_check import AnnotationFaults
from mindcv_poolformer.data.detection.annotation_file import read_annotations
from mindcv_poolformer.data.detection.coco import (
    evaluation_pictures,
    split_paths,
    training_pictures,
)
from mindcv_poolformer.data.detection.outlines import mask_of_runs, runs_of_code
from mindcv_poolformer.data.detection.splits import pictures_to_validate_on
from mindcv_poolformer.runtime.errors import UnreadableError, UserError

IMAGES = [
    picture(70, 60, 40),  # two objects, listed apart
    picture(9, 40, 60),  # a crowd alone
    picture(50, 31, 60),  # below 32 pixels
    picture(8, 40, 40),  # nothing on it
    picture(7, 50, 45),  # all that is left out
]
TRIANGLE = [2.3, 1.1, 30.7, 4.9, 12.5, 33.3]
PIECE = [40.0, 20.0, 55.5, 20.0, 55.5, 38.25, 40.0, 38.25]
RUNS = {"size": [40, 60], "counts": [85, 10, 30, 10, 2265]}
CONTENT = {
    "images": IMAGES,
    "categories": CATEGORIES,
    "annotations": [
        annotation(11, 70, 1, 2.3, 1.1, 53.2, 37.15, segmentation=[TRIANGLE, PIECE]),
        annotation(5, 9, 3, 1, 1, 30, 50, iscrowd=1),
        annotation(6, 50, 3, 1, 1, 20, 20),
        annotation(12, 70, 90, 2, 5, 3, 20, segmentation=RUNS),
        annotation(21, 7, 3, 1, 1, 5, 5, ignore=1),
        annotation(22, 7, 3, 50, 5, 5, 5),  # beside the picture's edge
        annotation(23, 7, 3, -5, 5, 5, 5),
        annotation(24, 7, 3, 5, 5, 0.9, 5),
        annotation(25, 7, 3, 5, 5, 5, 5, area=0),
        annotation(26, 7, 4, 5, 5, 5, 5),  # no such category
        annotation(27, 7, 1, 5, 5, 5, 5, iscrowd=1),
        annotation(28, 7, 1, -2, 5, 60, 80),  # over the edges, and therefore kept
    ],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "annotations" / "instances_mine.json", CONTENT)
    write_pictures(tmp_path / "mine", IMAGES)
    return tmp_path


def test_pictures_to_train_on(root: Path) -> None:
    pictures = training_pictures(*split_paths(root, "mine"), masks=True)
    assert pictures.classes == ("car", "person", "brush")  # in the file's order
    assert pictures.category_ids.tolist() == [3, 1, 90]
    assert pictures.ids.tolist() == [70, 9, 7]
    assert pictures.sizes.tolist() == [[40, 60], [60, 40], [45, 50]]
    assert pictures.most_objects == 2
    file = root / "annotations" / "instances_mine.json"
    assert pictures.notes == (
        f"{file}: objects left out: 1 to be ignored, 2 outside of the picture, 2 without area, "
        "1 of other categories, 2 marked as crowd",
        f"{file}: pictures left out: 1 without an object, 1 below 32 pixels",
    )
    assert pictures.files(0) == (str(root / "mine" / "070.png"),)
    first, crowd, last = (pictures.read(index) for index in range(3))
    assert (first.pixels == np.asarray(Image.open(root / "mine" / "070.png"))).all()
    expected = np.float32([[2.3, 1.1, 2.3 + 53.2, 1.1 + 37.15], [2, 5, 5, 25]])
    assert first.boxes.dtype == np.float32 and (first.boxes == expected).all()
    assert first.labels.dtype == np.int32 and first.labels.tolist() == [1, 2]
    assert crowd.boxes.shape == (0, 4) and crowd.masks.shape == (0, 60, 40)
    assert last.boxes.tolist() == [[-2, 5, 58, 85]] and last.labels.tolist() == [1]
    named = dict(pictures.named_labels())
    assert list(named) == ["070.png", "009.png", "007.png"] and len(set(named.values())) == 3


def test_masks_are_those_of_pycocotools(root: Path) -> None:
    pictures = training_pictures(*split_paths(root, "mine"), masks=True)
    coco = COCO(str(root / "annotations" / "instances_mine.json"))
    for index in range(len(pictures)):
        kept = pictures.file.ids[pictures.objects(index)].tolist()
        masks = pictures.read(index).masks
        assert masks.dtype == np.uint8 and len(masks) == len(kept)
        for mask, number in zip(masks, kept, strict=True):
            assert (mask == coco.annToMask(coco.anns[number])).all() and mask.any()
    assert training_pictures(*split_paths(root, "mine"), masks=False).read(0).masks is None


def test_all_pictures_for_validation(root: Path) -> None:
    pictures = evaluation_pictures(*split_paths(root, "mine"))
    assert pictures.ids.tolist() == [70, 9, 50, 8, 7]
    file = root / "annotations" / "instances_mine.json"
    assert pictures.notes == (f"{file}: objects left out: 1 of other categories",)
    assert [len(pictures.read(index).labels) for index in range(5)] == [2, 0, 1, 0, 1]
    chosen = evaluation_pictures(*split_paths(root, "mine"), classes=["brush", "person"])
    assert chosen.category_ids.tolist() == [90, 1]
    assert chosen.read(0).labels.tolist() == [1, 0]
    with pytest.raises(UserError, match="found no category dog among 3, expected the classes dog"):
        evaluation_pictures(*split_paths(root, "mine"), classes=["dog"])


def test_masks_of_what_training_leaves_out_are_compared_with(root: Path) -> None:
    """So each has to have an outline, which is told before the work."""
    content = copy.deepcopy(CONTENT)
    (crowd,) = (row for row in content["annotations"] if row["id"] == 5)
    crowd["segmentation"] = []
    write(root / "annotations" / "instances_mine.json", content)
    recipe = Recipe(data=DataConfig(dataset="coco", data_dir=str(root), val_split="mine"))
    assert len(pictures_to_validate_on(recipe, None, 3, masks=False)) == 5
    with pytest.raises(UserError, match="picture 9, annotation 5: found no outline, expected"):
        pictures_to_validate_on(recipe, None, 3, masks=True)


def test_runs_of_any_length() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        height, width = rng.integers(1, 70, 2)
        mask = (rng.random((height, width)) < rng.random()).astype(np.uint8)
        if rng.random() < 0.3:
            mask = np.kron(mask, np.ones((20, 15), np.uint8))
        code = np.frombuffer(coco_mask.encode(np.asfortranarray(mask))["counts"], np.uint8)
        assert (mask_of_runs(runs_of_code(code), *mask.shape) == mask).all()


def test_coded_runs_and_files_that_tell_less(root: Path) -> None:
    """As exports of boxes do: no areas, no crowds, some outlines empty."""
    content = copy.deepcopy(CONTENT)
    code = coco_mask.frPyObjects(RUNS, 40, 60)["counts"].decode()
    for number, row in enumerate(content["annotations"]):
        del row["area"], row["iscrowd"]
        row["segmentation"] = [] if number % 2 else {"size": [40, 60], "counts": code}
    content["annotations"] = content["annotations"][:1] + content["annotations"][3:4]
    path = write(root / "annotations" / "instances_mine.json", "\ufeff" + json.dumps(content))
    file = read_annotations(path)
    assert file.areas.tolist() == [53.2 * 37.15, 60] and not file.crowds.any()
    expected = mask_of_runs(np.array(RUNS["counts"]), 40, 60)
    assert (file.outlines.mask(0, 40, 60) == expected).all()
    with pytest.raises(UserError) as error:
        training_pictures(*split_paths(root, "mine"), masks=True)
    assert str(error.value) == (
        f"{path}: picture 70, annotation 12: found no outline, expected one of each object for "
        "its mask (1 without one)"
    )
    assert training_pictures(*split_paths(root, "mine"), masks=False).ids.tolist() == [70]


def spoilt(*keys: Any, value: Any = None) -> str:
    """The file's text with one value replaced, or left out where None is given."""
    content = copy.deepcopy(CONTENT)
    place: Any = content
    for key in keys[:-1]:
        place = place[key]
    if value is None:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    return json.dumps(content)


FIRST = ("annotations", 0)
ON_70 = "picture 70, annotation 11: "
OF_RUNS = {"size": [60, 40], "counts": [2400]}
FAULTS = [
    (spoilt("images"), "found no images, expected images to be a list of objects"),
    (spoilt("annotations", value={}), "found {}, expected annotations to be a list of objects"),
    (spoilt("categories"), "found no categories, expected categories to be a list of objects"),
    (spoilt("categories", value=[]), "found no category, expected some in categories"),
    ("[]", "found a list, as of results, expected an object with images, annotations and cat"),
    ("3", "found 3, expected an object with images, annotations and categories"),
    ("", "found an empty file, expected COCO annotations"),
    (json.dumps(CONTENT)[:2000], "found damaged JSON ("),
    (spoilt("images", 0, "id"), "images[0]: found no id, expected an integer"),
    (spoilt("images", 1, value=7), "images[1]: found 7, expected an object"),
    (spoilt("images", 1, "id", value=70), "picture 70: found the id 70 twice, expected one pic"),
    (
        spoilt("images", 1, "width", value=40.5),
        "picture 9: found width 40.5, expected a number of pixels",
    ),
    (spoilt("images", 1, "height", value=0), "picture 9: found height 0, expected a number of"),
    (spoilt("images", 1, "file_name", value=3), "picture 9: found file_name 3, expected text"),
    (
        spoilt("images", 1, "file_name", value="\ud800.png"),
        'picture 9: found file_name "\\ud800.png", expected text',
    ),
    (spoilt("categories", 1, "id", value="1"), 'categories[1]: found id "1", expected an integer'),
    (
        spoilt("categories", 1, "name", value="traffic\nlight"),
        'categories[1]: found name "traffic\\nlight", expected text on one line',
    ),
    (spoilt("categories", 1, "name", value="car"), 'category 1: found the name "car" twice, '),
    (spoilt(*FIRST, "id"), "annotations[0]: found no id, expected an integer"),
    (spoilt(*FIRST, "id", value=12), "picture 70, annotation 12: found the id 12 twice, expected"),
    (spoilt(*FIRST, "image_id"), "annotation 11: found no image_id, expected that of a picture"),
    (
        spoilt(*FIRST, "image_id", value=71),
        "annotation 11: found image_id 71, expected that of a picture",
    ),
    (spoilt(*FIRST, "category_id"), f"{ON_70}found no category_id, expected an integer"),
    (spoilt(*FIRST, "bbox"), f"{ON_70}found no bbox, expected four numbers: x, y, width, height"),
    (spoilt(*FIRST, "bbox", value=[1, 2, 3]), f"{ON_70}found bbox [1, 2, 3], expected four num"),
    (
        spoilt(*FIRST, "bbox", value=[1, 2, float("nan"), 4]),
        f"{ON_70}found bbox [1, 2, NaN, 4], expected four numbers: x, y, width, height",
    ),
    (spoilt(*FIRST, "bbox", 2, value=10**400), f"{ON_70}found bbox [2.3, 1.1, 1000000"),
    (spoilt(*FIRST, "area", value="5"), f'{ON_70}found area "5", expected a number of pixels'),
    (spoilt(*FIRST, "iscrowd", value=2), f"{ON_70}found iscrowd 2, expected 0 or 1"),
    (
        spoilt(*FIRST, "segmentation", 1, value=[1, 2, 3, 4]),
        f"{ON_70}found a polygon of 4 numbers, expected an even number of them, 6 or more",
    ),
    (
        spoilt(*FIRST, "segmentation", 1, value=[1, 2, 3, 4, 5, float("nan")]),
        f"{ON_70}found a polygon [1.0, 2.0, 3.0, 4.0, 5.0, NaN], expected finite numbers",
    ),
    (
        spoilt(*FIRST, "segmentation", value=[1, 2, 3, 4, 5, 6]),
        f"{ON_70}found segmentation [1, 2, 3, 4, 5, 6], expected a list of polygons",
    ),
    (
        spoilt(*FIRST, "segmentation", value=[["1", 2, 3, 4, 5, 6]]),
        f'{ON_70}found segmentation [["1", 2, 3, 4, 5, 6]], expected a list of polygons',
    ),
    (
        spoilt(*FIRST, "segmentation", value=OF_RUNS),
        f"{ON_70}found runs of size [60, 40], expected [40, 60], height and width of the picture",
    ),
    (
        spoilt(*FIRST, "segmentation", value=RUNS | {"counts": [1, 2]}),
        f"{ON_70}found runs of 3 pixels, expected 2,400 in all",
    ),
    (
        spoilt(*FIRST, "segmentation", value=RUNS | {"counts": [2401, -1]}),
        f"{ON_70}found counts [2401, -1], expected whole numbers, or text that codes them",
    ),
    (
        spoilt(*FIRST, "segmentation", value={"counts": "abc"}),
        f'{ON_70}found segmentation {{"counts": "abc"}}, expected polygons, or size and counts of',
    ),
]


@pytest.mark.parametrize(("text", "said"), FAULTS, ids=[said for _, said in FAULTS])
def test_bad_files_take_a_line(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path / "mine.json", text)
    with pytest.raises(AnnotationFaults) as error:
        read_annotations(path)
    assert str(error.value).startswith(f"{path}: {said}") and "\n" not in str(error.value)
    assert len(error.value.faults) == 1


def test_all_faults_are_known(tmp_path: Path) -> None:
    content = copy.deepcopy(CONTENT)
    content["annotations"][1]["bbox"] = None
    content["annotations"][4] |= {"iscrowd": "no", "area": None}
    path = write(tmp_path / "mine.json", content)
    with pytest.raises(AnnotationFaults) as error:
        read_annotations(path)
    assert error.value.faults == (
        "picture 9, annotation 5: found bbox null, expected four numbers: x, y, width, height",
        "picture 7, annotation 21: found area null, expected a number of pixels",
        'picture 7, annotation 21: found iscrowd "no", expected 0 or 1',
    )
    assert str(error.value) == f"{path}: {error.value.faults[0]} (and 2 more)"


def test_files_and_folders_that_are_not_there(root: Path) -> None:
    for name, said in (("none.json", "found No such file"), ("", "found Is a directory")):
        with pytest.raises(UserError, match=f"{said}.*, expected COCO annotations"):
            read_annotations(root / name)
    write(root / "bytes.json", "").write_bytes(b"\xff\xfe{}")
    with pytest.raises(UserError, match="found bytes that are not UTF-8, expected COCO annot"):
        read_annotations(root / "bytes.json")
    with pytest.raises(UserError, match="other: found no such folder, expected the pictures of"):
        training_pictures(split_paths(root, "mine")[0], root / "other", masks=False)
    empty = write(root / "empty.json", CONTENT | {"annotations": []})
    with pytest.raises(UserError, match="empty.json: found no picture to train on, expected some"):
        training_pictures(empty, root / "mine", masks=False)


def test_pictures_that_cannot_be_used(root: Path) -> None:
    pictures = training_pictures(*split_paths(root, "mine"), masks=True)
    path = root / "mine" / "070.png"

    def said(spoil: Any) -> str:
        spoil()
        with pytest.raises(UnreadableError) as error:
            pictures.read(0)
        assert error.value.path == str(path)
        return error.value.reason

    assert said(path.unlink) == "does not exist"
    assert said(lambda: path.write_bytes(b"no image")).startswith("is not in an image format")
    assert said(lambda: Image.new("RGB", (60, 41)).save(path)) == (
        f"found 60 x 41 pixels, expected 60 x 40, as in {pictures.file.path}"
    )
    turned = Image.Exif()
    turned[0x112] = 6
    assert said(lambda: Image.new("RGB", (60, 40)).save(path, exif=turned)) == (
        "found 40 x 60 pixels, as its EXIF orientation turns the 60 x 40 of the file, expected "
        f"60 x 40, as in {pictures.file.path}"
    )
    Image.new("RGB", (40, 60)).save(path, exif=turned)
    assert pictures.read(0).pixels.shape == (40, 60, 3)


@pytest.mark.parametrize("code", ["", "0", "P", "\x1f", "~" * 3, "0" * 50, "o" * 30])
def test_coded_runs_that_are_damaged(root: Path, code: str) -> None:
    path = write(
        root / "annotations" / "instances_mine.json",
        spoilt(*FIRST, "segmentation", value=RUNS | {"counts": code}),
    )
    with pytest.raises(UserError) as error:
        training_pictures(*split_paths(root, "mine"), masks=True).read(0)
    said = str(error.value).removeprefix(f"image {root / 'mine' / '070.png'}: ")
    assert said.startswith(f"annotation 11 of {path}: found ") or ON_70 + "found " in said
