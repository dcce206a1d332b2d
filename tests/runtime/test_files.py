from __future__ import annotations

from pathlib import Path

import pytest

from mindcv_poolformer.runtime.files import replaced_file, replaced_folder


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"), replaced_file(path) as temporary:
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
