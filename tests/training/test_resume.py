from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor

from mindcv_poolformer.config import OptimizerConfig, Recipe, SystemConfig
from mindcv_poolformer.runtime.checkpoint_file import save_checkpoint
from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.training.image_list import what_changed, write_image_list
from mindcv_poolformer.training.resume import check_same_run, find, run_identity

IMAGES = [("cat/1.png", 0), ("dog/1.png", 1)]


def save(path: Path, step: int, **more: object) -> Path:
    metadata = {"run": {}, "position": {"step": step}, "history": {}, **more}
    save_checkpoint(path, {"w": Tensor(np.ones(9, np.float32))}, metadata)
    return path


def damage(path: Path, how: str) -> None:
    """As a torn write, a bad disk or a careless copy leave it."""
    content = path.read_bytes()
    if how == "empty":
        path.write_bytes(b"")
    elif how == "torn":
        path.write_bytes(content[: len(content) // 2])
    elif how == "without metadata":
        path.write_bytes(content[: content.index(b"metadata") - 4])
    else:
        bit = content.index(np.ones(9, np.float32).tobytes()) + 4
        path.write_bytes(content[:bit] + bytes([content[bit] ^ 1]) + content[bit + 1 :])


def test_what_resume_finds(tmp_path: Path) -> None:
    assert find(tmp_path, "auto") is None
    for resume in (True, str(tmp_path / "other.ckpt")):
        with pytest.raises(UserError, match="resume: found no checkpoint"):
            find(tmp_path, resume)
    last = save(tmp_path / "last.ckpt", 7)
    for resume in (True, "auto"):
        found = find(tmp_path, resume)
        assert (found.path, found.position["step"], found.damaged) == (last, 7, ())
    assert find(tmp_path, False) is None
    other = save(tmp_path / "other.ckpt", 3)
    found = find(tmp_path, str(other))
    assert (found.position["step"], found.own) == (3, True)


def test_the_same_command_goes_on_where_it_named_another_folders_checkpoint(
    tmp_path: Path,
) -> None:
    other, here = save(tmp_path / "other.ckpt", 3), tmp_path / "here"
    here.mkdir()
    found = find(here, str(other))
    assert (found.position["step"], found.own) == (3, False)
    save(here / "last.ckpt", 5, origin=found.origin)
    found = find(here, str(other))
    assert (found.position["step"], found.own) == (5, True)
    assert found.origin == str(other)  # for the next checkpoint
    for origin in (None, str(tmp_path / "third.ckpt")):
        save(here / "last.ckpt", 5, origin=origin)
        with pytest.raises(UserError, match=f"resume: found a run in {here} that did not begin"):
            find(here, str(other))


@pytest.mark.parametrize("how", ["empty", "torn", "without metadata", "one bit"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, how: str) -> None:
    last, previous = save(tmp_path / "last.ckpt", 7), save(tmp_path / "previous.ckpt", 6)
    damage(last, how)
    found = find(tmp_path, "auto")
    assert (found.path, found.position["step"]) == (previous, 6)
    (reason,) = found.damaged
    assert reason.startswith(f"{last}: found")
    with pytest.raises(UserError, match=r"last\.ckpt: found"):
        find(tmp_path, str(last))
    damage(previous, how)
    with pytest.raises(UserError, match=r"last\.ckpt.*previous\.ckpt.*--resume false"):
        find(tmp_path, "auto")


def test_between_two_renames_there_is_only_the_previous(tmp_path: Path) -> None:
    previous = save(tmp_path / "previous.ckpt", 6)
    found = find(tmp_path, "auto")
    assert (found.path, found.damaged) == (previous, ())


def test_bare_weights_are_no_run(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "bare.ckpt", {"w": Tensor(np.ones(2, np.float32))}, {"epoch": 1})
    with pytest.raises(UserError, match=r"bare\.ckpt: found no state of a run"):
        find(tmp_path, str(tmp_path / "bare.ckpt"))


def identity(recipe: Recipe, ranks: int = 1, images: list = IMAGES) -> dict:
    return json.loads(json.dumps(run_identity(recipe, ranks, images)))


def test_the_same_run_goes_on(tmp_path: Path) -> None:
    then = identity(Recipe())
    harmless = replace(Recipe(), system=SystemConfig(num_parallel_workers=3, log_interval=1))
    check_same_run(then, run_identity(Recipe(), 1, IMAGES), IMAGES, tmp_path)
    check_same_run(then, run_identity(harmless, 1, IMAGES), IMAGES, tmp_path)


def test_a_files_name_need_be_no_text() -> None:
    """Its bytes count as they are."""
    name, other = (os.fsdecode(b"a/caf%c.png" % byte) for byte in (0xE9, 0xE8))
    digest = hashlib.sha256(b"a/caf\xe9.png\n0\n").hexdigest()
    assert identity(Recipe(), images=[(name, 0)])["training images"] == digest[:16]
    assert identity(Recipe(), images=[(name, 0)]) != identity(Recipe(), images=[(other, 0)])


@pytest.mark.parametrize(
    ("recipe", "ranks", "images", "said"),
    [
        (replace(Recipe(), system=SystemConfig(seed=1)), 1, IMAGES, "seed 42, found 1;"),
        (
            replace(Recipe(), optimizer=OptimizerConfig(ema=True, eps=1e-6)),
            1,
            IMAGES,
            " and 1 more",
        ),
        (Recipe(), 2, IMAGES, "number of ranks 1, found 2;"),
        (Recipe(), 1, IMAGES[:1], "training images "),
        (Recipe(), 1, [("cat/1.png", 1), ("dog/1.png", 0)], "training images "),
    ],
)
def test_another_run_is_refused(
    tmp_path: Path, recipe: Recipe, ranks: int, images: list, said: str
) -> None:
    now = run_identity(recipe, ranks, images)
    with pytest.raises(UserError) as error:
        check_same_run(identity(Recipe()), now, images, tmp_path / "last.ckpt")
    assert said in str(error.value) and "last.ckpt was trained with" in str(error.value)
    assert ("--resume_force" in str(error.value)) == (ranks == 2)
    if ranks == 2:
        check_same_run(identity(Recipe()), now, images, tmp_path / "last.ckpt", force=True)
    else:
        with pytest.raises(UserError, match=said.strip()):
            check_same_run(identity(Recipe()), now, images, tmp_path / "last.ckpt", force=True)


def test_more_epochs_are_shown_the_way(tmp_path: Path) -> None:
    longer = replace(Recipe(), schedule=replace(Recipe().schedule, epoch_size=999))
    path = tmp_path / "last.ckpt"
    with pytest.raises(
        UserError, match=f"found 999.* to train on: --ckpt_path {path} and a --ckpt"
    ):
        check_same_run(identity(Recipe()), run_identity(longer, 1, IMAGES), IMAGES, path)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ([*IMAGES, ("dog/2.png", 1), ("a b/\\n\udce9.png", 2)], "2 came and 0 went, one is 'a b/"),
        (IMAGES[1:], "0 came and 1 went, one is 'cat/1.png';"),
        ([("cat/1.png", 0), ("cow/1.png", 1), ("dog/1.png", 2)], "1 came and 0 went, one is 'cow"),
        ([("cat/1.png", 1), ("dog/1.png", 1)], "1 have another class's number, one is 'cat/1.png'"),
    ],
)
def test_images_that_changed_are_counted(tmp_path: Path, images: list, said: str) -> None:
    write_image_list(tmp_path, IMAGES)
    now = run_identity(Recipe(), 1, images)
    with pytest.raises(UserError, match="last.ckpt was trained on other images, found ") as error:
        check_same_run(identity(Recipe()), now, images, tmp_path / "last.ckpt")
    assert said in str(error.value) and len(str(error.value).splitlines()) == 1


def test_the_list_gives_the_names_back(tmp_path: Path) -> None:
    odd = [("a b/new\nline.png", 0), (os.fsdecode(b"c/caf\xe9.png"), 1), ("d/'quote\".png", 2)]
    write_image_list(tmp_path, odd)
    assert what_changed(tmp_path, odd) is None
