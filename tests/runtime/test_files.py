from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.runtime.files import remove_leftovers, replaced_file, replaced_folder


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    path.write_text("old")
    said = r"x.ckpt: cannot be written \(disk full\).*; what was there before is kept"
    with pytest.raises(UserError, match=said), replaced_file(path) as temporary:
        temporary.write_text("ne")
        assert path.read_text() == "old"
        assert temporary.suffix == ".ckpt"  # MindSpore would add it
        temporary.with_suffix(".tmp").touch()  # as MindSpore does, and leaves it on a full disk
        raise OSError("disk full")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "old"
    with replaced_file(path) as temporary:
        temporary.write_text("new")
        temporary.chmod(0o400)
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_the_content_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    flushed, fsync = [], os.fsync

    def noted(descriptor: int) -> None:
        of = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        flushed.append((of, path.read_text()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    with replaced_file(path) as temporary:
        temporary.write_text("new")
    assert flushed == [("x", "old"), (tmp_path.name, "new")]


def test_who_has_the_old_file_open_reads_on(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    with path.open() as reader:
        with replaced_file(path) as temporary:
            temporary.write_text("new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_the_old_file_goes_to_its_backup(tmp_path: Path) -> None:
    path, backup = tmp_path / "x", tmp_path / "y"
    for content, before in (("one", None), ("two", "one"), ("three", "two")):
        with replaced_file(path, backup) as temporary:
            temporary.write_text(content)
        assert path.read_text() == content
        assert (backup.read_text() if backup.exists() else None) == before


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    for name in (".last.ckpt.4711", ".a.1", ".git", "b.2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    (tmp_path / ".c.3").touch()
    remove_leftovers(tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".c.3", ".git", "b.2"]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for name in ("first", "second"):
        with replaced_folder(path) as folder:
            (folder / name).touch(0o600)
        assert (path / name).stat().st_mode & 0o777 == 0o644
        assert [entry.name for entry in path.iterdir()] == [name]
    with pytest.raises(KeyError), replaced_folder(path) as folder:
        (folder / "third").touch()
        raise KeyError
    assert [entry.name for entry in path.iterdir()] == ["second"]
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_folder_comes_back_where_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "x").write_text("old")
    rename = Path.rename

    def refused(self: Path, target: Path) -> Path:
        if target == folder and (self / "x").read_text() == "new":
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(UserError, match="Input/output error"), replaced_folder(folder) as staging:
        (staging / "x").write_text("new")
    assert (folder / "x").read_text() == "old"
    assert list(tmp_path.iterdir()) == [folder]


def test_folders_made_for_what_fails_go_with_it(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(KeyError), replaced_folder(tmp_path / "there" / "new" / "a" / "model"):
        raise KeyError
    assert [entry.name for entry in tmp_path.rglob("*")] == ["there"]
