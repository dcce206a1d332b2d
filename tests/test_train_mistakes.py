"""train.py on mistakes: one line on standard error each, before anything is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import mindcv
import mindspore as ms
import pytest
from scripts import run, write_images, write_workspace

MISTAKES: dict[str, tuple[dict[str, Any], int, str]] = {
    "no data": ({"data_dir": "nowhere"}, 1, "nowhere/train"),
    "unknown model": ({"model": "poolformer_s13", "drop_path_rate": 0.1}, 1, "poolformer_s13"),
    "no weights": ({"ckpt_path": "mistyped.ckpt"}, 1, "mistyped.ckpt"),
    "corrupt image, processes": (
        {"train_split": "corrupt", "python_multiprocessing": True, "num_parallel_workers": 2},
        1,
        "data/corrupt/class0/00.png",
    ),
    "bad value": ({"lr": -1}, 2, "lr"),
}
MORE_MISTAKES: dict[str, tuple[dict[str, Any], int, str]] = {
    "empty class": ({"train_split": "empty"}, 1, "data/empty/class3"),
    "stranger in val": ({"val_split": "stranger", "val_while_train": True}, 1, "class9"),
    "corrupt image": ({"train_split": "corrupt"}, 1, "data/corrupt/class0/00.png"),
    "corrupt image in val": (
        {"val_split": "corrupt", "val_while_train": True, "mode": 1, "batch_size": 48},
        1,
        "data/corrupt/class0/00.png",
    ),
    "few classes": ({"num_classes": 2}, 1, "num_classes: found 2 with 3 classes"),
    "large batch": ({"batch_size": 49}, 1, "48 images, expected at least 49"),
    "no launcher": ({"distribute": True}, 1, "distribute"),
    "other weights": ({"ckpt_path": "s24.ckpt"}, 1, "s24.ckpt"),
    "nothing to resume": ({"resume": True}, 1, "last.ckpt"),
    "resume from nowhere": ({"resume": "mistyped.ckpt"}, 1, "mistyped.ckpt"),
    "resume from bare weights": ({"resume": "s24.ckpt"}, 1, "s24.ckpt"),
    "unknown flag": ({"learning_rate": 1}, 2, "learning_rate"),
    "contradiction": ({"ckpt_save_policy": "top_k"}, 2, "ckpt_save_policy"),
}


@pytest.fixture(scope="module")
def mistakable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with all that the mistakes need."""
    folder = write_workspace(tmp_path_factory.mktemp("mistakes"))
    for split in ("empty", "stranger", "corrupt"):
        write_images(folder / "data" / split, 16)
    (folder / "data" / "empty" / "class3").mkdir()
    (folder / "data" / "stranger" / "class2").rename(folder / "data" / "stranger" / "class9")
    damaged = folder / "data" / "corrupt" / "class0" / "00.png"
    damaged.write_bytes(damaged.read_bytes()[:600])
    network = mindcv.create_model("poolformer_s24", num_classes=3)
    ms.save_checkpoint(network, str(folder / "s24.ckpt"))
    return folder


@pytest.mark.parametrize(
    ("keys", "code", "said"),
    [
        *(pytest.param(*case, id=name) for name, case in MISTAKES.items()),
        *(pytest.param(*c, id=name, marks=pytest.mark.long) for name, c in MORE_MISTAKES.items()),
    ],
)
def test_a_mistake_is_one_line(
    mistakable: Path, tmp_path: Path, keys: dict[str, Any], code: int, said: str
) -> None:
    save_dir = tmp_path / "run"
    ended = run("train.py", mistakable, **{"shuffle": False, "ckpt_save_dir": save_dir} | keys)
    assert ended.code == code, ended.err
    assert re.fullmatch(rf"error: [^\n]*{re.escape(said)}[^\n]*\n", ended.err)
    if "corrupt" not in said:  # found when training has begun
        assert ended.out == ""
        assert not save_dir.exists()
