from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from mindcv_poolformer.data.digits import write_digits
from mindcv_poolformer.data.folder import scan_folder
from mindcv_poolformer.runtime.errors import UserError


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("digits") / "below" / "digits"
    write_digits(root)
    return root


def test_every_image_once_in_a_stratified_split(digits):
    train, val = scan_folder(digits / "train"), scan_folder(digits / "val")
    assert train.classes == val.classes == tuple("0123456789")
    targets = load_digits().target
    numbers = {}
    for path in train.paths + val.paths:
        numbers[int(Path(path).stem)] = int(Path(path).parent.name)
    assert numbers == dict(enumerate(targets.tolist()))
    assert len(train) + len(val) == 1797
    counts = np.bincount(targets)
    assert np.bincount(val.labels).tolist() == [count // 5 for count in counts]
    assert sorted(path.name for path in digits.parent.iterdir()) == ["digits"]


def test_images_are_the_originals_enlarged(digits):
    original = load_digits().images[1234]
    (path,) = digits.glob("*/*/1234.png")
    image = Image.open(path)
    assert image.mode == "L" and image.size == (32, 32)
    means = np.asarray(image, dtype=float).reshape(8, 4, 8, 4).mean(axis=(1, 3))
    assert np.corrcoef(means.ravel(), original.ravel())[0, 1] > 0.99
    assert np.abs(means - original * 255 / 16).mean() < 12


def test_written_once_and_always_the_same(digits, tmp_path):
    write_digits(tmp_path / "digits")
    written = {p.relative_to(tmp_path / "digits"): p for p in tmp_path.rglob("*.png")}
    for name, path in written.items():
        assert path.read_bytes() == (digits / name).read_bytes()
    marked = tmp_path / "digits" / "notes.txt"
    marked.write_text("kept")
    write_digits(tmp_path / "digits")
    assert marked.exists()


def test_something_else_is_left_alone(tmp_path):
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="digits exists but is not the complete"):
        write_digits(tmp_path / "digits")
    assert (tmp_path / "digits" / "mine.txt").read_text() == "mine"


def test_without_scikit_learn(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match="pip install scikit-learn"):
        write_digits(tmp_path / "digits")
    assert not list(tmp_path.iterdir())
