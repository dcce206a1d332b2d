from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mindcv_poolformer.config import OptimizerConfig, Recipe, SystemConfig
from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.training.resume import check_same_run, find, run_identity

IMAGES = [("cat/1.png", 0), ("dog/1.png", 1)]


def test_what_resume_finds(tmp_path: Path) -> None:
    assert find(tmp_path, "auto") is None
    for resume in (True, str(tmp_path / "other.ckpt")):
        with pytest.raises(UserError, match="resume: found no checkpoint"):
            find(tmp_path, resume)
    (tmp_path / "last.ckpt").touch()
    assert find(tmp_path, "auto") == find(tmp_path, True) == tmp_path / "last.ckpt"
    assert find(tmp_path, False) is None
    (tmp_path / "other.ckpt").touch()
    assert find(tmp_path, str(tmp_path / "other.ckpt")) == tmp_path / "other.ckpt"


def identity(recipe: Recipe, ranks: int = 1, images: list = IMAGES) -> dict:
    return json.loads(json.dumps(run_identity(recipe, ranks, images)))


def test_the_same_run_goes_on(tmp_path: Path) -> None:
    then = identity(Recipe())
    harmless = replace(Recipe(), system=SystemConfig(num_parallel_workers=3, log_interval=1))
    check_same_run(then, run_identity(Recipe(), 1, IMAGES), tmp_path)
    check_same_run(then, run_identity(harmless, 1, IMAGES), tmp_path)


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
        check_same_run(identity(Recipe()), now, tmp_path / "last.ckpt")
    assert said in str(error.value) and "last.ckpt was trained with" in str(error.value)
