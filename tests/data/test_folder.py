from __future__ import annotations

from pathlib import Path

import pytest

from mindcv_poolformer.data.folder import find_images, scan_folder
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
