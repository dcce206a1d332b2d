from __future__ import annotations

import os
from pathlib import Path

import pytest

from mindcv_poolformer.config import DataConfig
from mindcv_poolformer.data.folder import (
    ImageFolder,
    class_folders,
    files_below,
    find_images,
    scan_folder,
)
from mindcv_poolformer.data.splits import training_images
from mindcv_poolformer.runtime.errors import UserError


def make_folder(root: Path, *files: str) -> Path:
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def test_images_come_sorted_with_the_index_of_their_class(tmp_path):
    files = ["b/2.JPEG", "a/z.png", "b/sub/1.jpg", "a/notes.txt", "c/x.WebP", "readme.md"]
    folder = scan_folder(make_folder(tmp_path, *files))
    assert folder.classes == ("a", "b", "c")
    assert [str(Path(path).relative_to(tmp_path)) for path in folder.paths] == [
        "a/z.png",
        "b/2.JPEG",
        "b/sub/1.jpg",
        "c/x.WebP",
    ]
    assert folder.labels.tolist() == [0, 1, 1, 2]
    assert folder.labels.dtype == "int32"
    assert len(folder) == 4


def test_given_classes_fix_the_labels_even_where_a_folder_is_missing(tmp_path):
    folder = scan_folder(make_folder(tmp_path, "dog/1.png"), classes=["cat", "dog"])
    assert folder.classes == ("cat", "dog")
    assert folder.labels.tolist() == [1]


def test_errors_name_the_path(tmp_path):
    make_folder(
        tmp_path, "file", "empty_class/a/1.png", "empty_class/b/readme.txt", "val/cow/1.png"
    )
    (tmp_path / "empty").mkdir()
    for name, classes, message in [
        ("missing", None, "missing does not exist"),
        ("file", None, "file is not a folder"),
        ("empty", None, "empty holds no class folder"),
        ("empty_class", None, "empty_class/b holds no image"),
        ("val", ["cat", "dog"], "val/cow is not among the 2 training classes"),
    ]:
        with pytest.raises(UserError, match=message) as error:
            scan_folder(tmp_path / name, classes)
        assert str(tmp_path) in str(error.value)
        assert "\n" not in str(error.value)


def test_find_images(tmp_path: Path) -> None:
    (tmp_path / "b" / "deep").mkdir(parents=True)
    for name in ("b/2.png", "b/deep/1.JPEG", "b/notes.txt", "a.png", "c.odd"):
        (tmp_path / name).touch()
    found = find_images([tmp_path / "c.odd", str(tmp_path)])
    assert found == [tmp_path / n for n in ("c.odd", "a.png", "b/2.png", "b/deep/1.JPEG")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: found no image in the folder"):
        find_images([tmp_path / "empty"])


def names(folder: ImageFolder) -> list[str]:
    return [name for name, _ in folder.named_labels()]


def test_hidden_and_system_names_are_left_out_and_told(tmp_path: Path) -> None:
    hidden = (".ipynb_checkpoints/0.png", "__MACOSX/a/._0.png", "a/._0.png", "b/@eaDir/0.png")
    root = make_folder(tmp_path / ".data", "a/0.png", "b/x/1.png", *hidden)
    folder = scan_folder(root)
    assert folder.classes == ("a", "b") == tuple(class_folders(root))
    assert names(folder) == ["a/0.png", "b/x/1.png"]
    assert folder.notes == (f"{root}: 4 hidden or system names (.ipynb_checkpoints, …) ignored",)
    images, left_out = files_below(root)  # as the check and predict.py list them
    assert images == list(folder.paths)
    assert str(left_out) == "4 hidden or system names (.ipynb_checkpoints, …)"
    assert find_images([root / "a" / "._0.png"]) == [root / "a" / "._0.png"]  # asked for


@pytest.mark.parametrize("name", ["#recycle", "@Recycle", "$Recycle.Bin", "__pycache__"])
def test_what_was_deleted_on_network_storage_is_no_class(tmp_path: Path, name: str) -> None:
    root = make_folder(tmp_path, "a/0.png", "b/1.png", f"{name}/2.png")
    folder = scan_folder(root)
    assert folder.classes == ("a", "b")
    assert folder.notes == (f"{root}: 1 hidden or system name ({name}) ignored",)


@pytest.mark.parametrize(
    "target", [".", "..", "../..", "../../..", "{root}", "{root}/a", "/", "in"]
)
def test_a_link_to_a_folder_above_it_is_not_followed(tmp_path: Path, target: str) -> None:
    """Not by way of another link either: `in` holds one to the root."""
    root = make_folder(tmp_path / "data" / "train", "a/0.png", "a/deep/1.png", "b/2.png")
    make_folder(tmp_path / "data", "val/a/3.png")
    place = root / "a"
    if target == "in":
        place = tmp_path / "elsewhere"
        place.mkdir()
        (root / "a" / "in").symlink_to(place)
        target = "{root}"
    (place / "loop").symlink_to(target.format(root=root))
    folder = scan_folder(root)
    assert names(folder) == ["a/0.png", "a/deep/1.png", "b/2.png"]
    assert "1 link to a folder that it is in (a/" in folder.notes[0]
    assert len(files_below(tmp_path / "data")[0]) == 4
    assert len(find_images([root / "a"])) == 2


def test_links_to_what_is_above_a_link_or_its_target_are_not_followed(tmp_path: Path) -> None:
    make_folder(tmp_path, "stored/train/a/0.png", "stored/train/b/1.png", "data/val/a/2.png")
    make_folder(tmp_path, "more/cats/3.png", "more/dogs/4.png")
    root = tmp_path / "data" / "train"
    root.symlink_to(tmp_path / "stored" / "train")
    (root / "a" / "data").symlink_to(tmp_path / "data")
    (root / "a" / "cats").symlink_to(tmp_path / "more" / "cats")
    (root / "a" / "cats" / "up").symlink_to("..")
    assert names(scan_folder(root)) == ["a/0.png", "a/cats/3.png", "b/1.png"]
    assert len(files_below(tmp_path / "data")[0]) == 4


def test_a_class_that_is_a_link_to_all_classes_is_none(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "train", "a/0.png", "b/1.png")
    (root / "all").symlink_to(".")
    folder = scan_folder(root)
    assert folder.classes == ("a", "b")
    assert folder.notes == (f"{root}: 1 link to a folder that it is in (all) ignored",)


def test_links_to_other_folders_and_files_are_followed(tmp_path: Path) -> None:
    stored = make_folder(tmp_path / "store", "cats/0.png", "more/deep/1.png", "2.png")
    root = make_folder(tmp_path / "train", "b/3.png", "b/sub/4.png")
    (root / "a").symlink_to(stored / "cats")
    (root / "b" / "more").symlink_to(stored / "more")
    (root / "b" / "twin").symlink_to("../a")
    (root / "b" / "x.png").symlink_to(stored / "2.png")
    (tmp_path / "linked").symlink_to(root)
    for path in (root, tmp_path / "linked"):
        found = ["a/0.png", "b/3.png", "b/more/deep/1.png", "b/sub/4.png", "b/twin/0.png"]
        assert names(scan_folder(path)) == [*found, "b/x.png"]
        assert scan_folder(path).notes == ()


def test_what_is_neither_folder_nor_file_is_left_out_and_told(tmp_path: Path) -> None:
    root = make_folder(tmp_path, "a/0.png", "b/1.png", "stray.png", "notes.txt")
    os.mkfifo(root / "a" / "pipe.png")
    (root / "b" / "endless.png").symlink_to("/dev/zero")
    (root / "gone").symlink_to("nowhere")
    (root / "round").symlink_to("round")
    (root / "a" / "lost.png").symlink_to("nowhere.png")  # an image that is missing, no less
    folder = scan_folder(root)
    assert names(folder) == ["a/0.png", "a/lost.png", "b/1.png"]
    assert folder.notes == (
        f"{root}: 1 file with other endings, 2 pipes, sockets or devices (a/pipe.png, …), 2 links "
        "to nothing (gone, …), 1 image beside the class folders (stray.png) ignored",
    )


def test_a_level_too_many_is_refused_or_told(tmp_path: Path) -> None:
    for deep in ("images", "images/all"):
        root = make_folder(tmp_path / deep / "root", "x/a/0.png", "x/b/1.png", "x/notes.txt")
        expected = f"{root}: found 1 class, x, with the folders a, b in it, expected two or more"
        with pytest.raises(UserError, match=expected):
            scan_folder(root)
        assert len(scan_folder(root, ["x", "y"])) == 2
    files = ["1/a/0.png", "1/b/1.png", "2/a/2.png", "2/b/3.png"]
    notes = scan_folder(make_folder(tmp_path / "two", *files)).notes
    assert "each of its 2 class folders holds the folders a, b, and no image" in notes[0]
    for files in (  # as Tiny ImageNet has it; folders that differ; images beside them
        ["1/images/0.png", "2/images/1.png"],
        ["1/a/0.png", "1/b/1.png", "2/c/2.png", "2/d/3.png"],
        ["1/a/0.png", "1/b/1.png", "1/2.png", "2/a/2.png", "2/b/3.png"],
    ):
        assert scan_folder(make_folder(tmp_path / str(len(files)), *files)).notes == ()


def test_one_class_is_trained_only_where_the_classifier_has_more(tmp_path: Path) -> None:
    make_folder(tmp_path, "train/a/0.png")
    data = DataConfig(data_dir=str(tmp_path))
    for num_classes in (None, 1):
        with pytest.raises(UserError, match="train: found 1 class, a, expected two or more"):
            training_images(data, num_classes)
    assert training_images(data, 10).classes == ("a",)


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9")
    root = make_folder(tmp_path, f"{odd}/{odd}.png", "a/0.png", "zoë/1.png")
    folder = scan_folder(root)
    assert folder.classes == ("a", "caf\\xe9", "zoë") == tuple(class_folders(root))
    assert names(folder) == ["a/0.png", f"{odd}/{odd}.png", "zoë/1.png"]
    assert scan_folder(root, folder.classes).labels.tolist() == [0, 1, 2]
    make_folder(root, "caf\\xe9/2.png")
    with pytest.raises(UserError, match="two folders of one name"):
        scan_folder(root)
