"""train.py with on_corrupt: images that cannot be read are replaced and listed, or stop the run."""

from __future__ import annotations

import re
from pathlib import Path

import forked
import numpy as np
import pytest
from PIL import Image
from scripts import RECIPE, Ended, assert_equal_weights, run, write_images
from small_network import SMALL, SMALL_SEGMENTER

SPOILT = {
    "data/train/class0/07.png": "cannot be read: image file is truncated",
    "data/train/class1/50.png": "is not in an image format that Pillow reads",
    "data/train/class2/99.png": "is an empty file",
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 training images, of which three are spoilt and one makes Pillow warn; 6 to validate."""
    folder = tmp_path_factory.mktemp("corrupt")
    (folder / "recipe.yaml").write_text(f"model: {SMALL}\n{RECIPE}")
    write_images(folder / "data" / "train", per_class=100)
    write_images(folder / "data" / "val", per_class=2)
    cut, text, empty = (folder / name for name in SPOILT)
    cut.write_bytes(cut.read_bytes()[:600])
    text.write_text("no image")
    empty.write_bytes(b"")
    Image.new("1", (9_500, 9_500)).save(folder / "data" / "train" / "class0" / "01.png")
    return folder


def train(folder: Path, ranks: int = 1, **keys: object) -> Ended:
    """In PyNative mode: it compiles nothing, and what is read is the same."""
    settings = {"batch_size": 100, "epoch_size": 1, "warmup_epochs": 0, "on_corrupt": "skip"}
    settings["mode"] = 1
    if ranks == 1:
        return forked.run("train.py", folder, **settings | keys)
    return run("train.py", folder, ranks, **settings | keys)


def listed(run_folder: Path) -> dict[str, str]:
    lines = (run_folder / "corrupt_images.txt").read_text().splitlines()
    return dict(line.split("\t") for line in lines)


def assert_complete(found: dict[str, str]) -> None:
    assert found.keys() == SPOILT.keys()
    for path, said in SPOILT.items():
        assert found[path].startswith(said)


@pytest.fixture(scope="module")
def alone(workspace: Path) -> tuple[Path, Ended]:
    """One process with one thread as data worker, in a folder that has a list from before."""
    (workspace / "alone").mkdir()
    old = "data/train/class0/00.png\tis an empty file\n" * 9
    (workspace / "alone" / "corrupt_images.txt").write_text(old)
    ended = train(workspace, epoch_size=2, ckpt_save_dir="alone")
    assert (ended.code, ended.err) == (0, "")
    return workspace / "alone", ended


def test_a_new_start_makes_a_new_list_of_corrupt_images(alone: tuple[Path, Ended]) -> None:
    folder, ended = alone
    assert_complete(listed(folder))
    assert "3 training images were corrupt and replaced by others: alone/corrupt_" in ended.out


@pytest.mark.long
def test_workers_change_nothing(workspace: Path, alone: tuple[Path, Ended]) -> None:
    workers = {"num_parallel_workers": 2, "python_multiprocessing": True}
    ended = train(workspace, epoch_size=2, ckpt_save_dir="workers", **workers)
    assert (ended.code, ended.err) == (0, "")
    assert_equal_weights(alone[0] / "last.ckpt", workspace / "workers" / "last.ckpt")
    assert_complete(listed(workspace / "workers"))


@pytest.mark.long
def test_two_ranks_share_a_list(workspace: Path) -> None:
    ended = train(workspace, ranks=2, batch_size=50, ckpt_save_dir="two")
    assert (ended.code, ended.err) == (0, "")
    assert_complete(listed(workspace / "two"))


@pytest.mark.long
def test_a_fourth_one_is_too_many(workspace: Path) -> None:
    fourth = workspace / "data" / "train" / "class2" / "00.png"
    whole = fourth.read_bytes()
    fourth.write_bytes(b"")
    ended = train(workspace, ckpt_save_dir="many")
    fourth.write_bytes(whole)
    assert ended.code == 1
    assert ended.err == (
        "error: on_corrupt: found 4 of 300 training images (1.33 %) that cannot be read, listed in "
        "many/corrupt_images.txt, expected at most 1 %; look with python -m mindcv_poolformer.data "
        "check data/train\n"
    )
    assert len(listed(workspace / "many")) == 4


@pytest.mark.long
def test_by_default_the_run_stops(workspace: Path) -> None:
    ended = train(workspace, ckpt_save_dir="stops", on_corrupt="error")
    assert ended.code == 1
    said = "|".join(re.escape(f"error: image {path} {why}") for path, why in SPOILT.items())
    assert re.fullmatch(rf"({said})[^\n]*\n", ended.err)
    assert not (workspace / "stops" / "corrupt_images.txt").exists()


@pytest.mark.long
def test_validation_stops_in_any_case(workspace: Path) -> None:
    write_images(workspace / "data" / "spoilt", per_class=2)
    (workspace / "data" / "spoilt" / "class1" / "01.png").write_bytes(b"")
    keys = {"val_split": "spoilt", "val_while_train": True, "ckpt_save_dir": "strict"}
    ended = train(workspace, **keys)
    assert ended.code == 1
    assert ended.err == "error: image data/spoilt/class1/01.png is an empty file\n"
    assert listed(workspace / "strict").keys() == SPOILT.keys()


@pytest.mark.long
def test_scenes_are_replaced_in_training_and_stop_validation(tmp_path: Path) -> None:
    """Of 100 one has a label of another size; validation meets a picture that is cut short."""
    scenes = {
        "task": "segmentation",
        "model": SMALL_SEGMENTER,
        "dataset": "scenes",
        "reduce_zero_label": False,
        "crop_size": (32, 32),
        "img_scale": (32, 32),
        "neck_channels": 4,
        "head_channels": 4,
        "val_while_train": True,
    }
    for kind, pixels in (("images", (32, 32, 3)), ("annotations", (32, 32))):
        for split, count in (("train", 100), ("val", 1)):
            (tmp_path / "data" / kind / split).mkdir(parents=True)
            for number in range(count):
                path = tmp_path / "data" / kind / split / f"{number:02d}.png"
                Image.fromarray(np.full(pixels, number % 2, np.uint8)).save(path)
    (tmp_path / "data" / "classes.txt").write_text("even\nodd\n")
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("image_resize: 32\n", ""))
    Image.new("L", (31, 32)).save(tmp_path / "data" / "annotations" / "train" / "07.png")
    cut = tmp_path / "data" / "images" / "val" / "00.png"
    cut.write_bytes(cut.read_bytes()[:60])
    ended = train(tmp_path, batch_size=50, ckpt_save_dir="run", **scenes)
    assert ended.code == 1
    assert ended.err.startswith("error: image data/images/val/00.png cannot be read: ")
    assert ended.err.count("\n") == 1 and "epoch 1/1" in ended.out
    assert listed(tmp_path / "run") == {
        "data/annotations/train/07.png": (
            "found 31 x 32 pixels, expected 32 x 32, as in data/images/train/07.png"
        )
    }
