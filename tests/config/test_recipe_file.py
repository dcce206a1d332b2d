"""Recipes that stand on others."""

from __future__ import annotations

from pathlib import Path

import pytest

from mindcv_poolformer.config import Recipe, parse_recipe
from mindcv_poolformer.config.recipe_file import RecipeError

GROUND = "lr_base: 0.001\nepoch_size: 103\nseed: 1\nbatch_size: 4\n"


def write(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def parse(path: Path, *flags: str) -> Recipe:
    return parse_recipe(["-c", str(path), *flags], description="A test.", default_config="none")


def test_the_nearer_file_counts(tmp_path: Path) -> None:
    write(
        tmp_path,
        base__ground=GROUND,
        base__middle="base: ground.yaml\nseed: 2\nbatch_size: 8\n",
        top="base: base/middle.yaml\nbatch_size: 16\n",
    )
    recipe = parse(tmp_path / "top.yaml", "--num_parallel_workers", "3")
    assert (recipe.schedule.epoch_size, recipe.system.seed, recipe.data.batch_size) == (103, 2, 16)
    assert recipe.system.num_parallel_workers == 3


def test_one_learning_rate_takes_the_bases_other_out(tmp_path: Path) -> None:
    write(tmp_path, ground=GROUND, top="base: ground.yaml\nlr: 0.5\n")
    schedule = parse(tmp_path / "top.yaml").schedule
    assert (schedule.lr, schedule.lr_base) == (0.5, None)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({"top": "base: ground.yaml\n"}, r"no file '.*ground\.yaml', .*top\.yaml"),
        ({"top": f"base: {300 * 'n'}\n"}, r"no file '.*n', .*top\.yaml"),
        ({"top": "base:\nlr: 0.1\n"}, r"base: found None.*top\.yaml"),
        ({"top": "bsae: ground.yaml\n"}, "bsae: found an unknown key, .* perhaps base"),
        ({"top": "base: [ground.yaml]\n"}, r"base: found \['ground\.yaml'\].*top\.yaml"),
        ({"top": "base: top.yaml\nlr: 1\n"}, r"'.*top\.yaml' to stand on itself \(.*top\.yaml"),
        (
            {"top": "base: a.yaml\n", "a": "base: b.yaml\n", "b": "base: ./a.yaml\n"},
            r"'.*a\.yaml' to stand on itself \(.*b\.yaml",
        ),
        (
            {"top": "base: ground.yaml\n", "ground": GROUND + "epoch_size: 9\n"},
            r"ground\.yaml, line 5: key 'epoch_size' found twice",
        ),
        (
            {"top": "base: ground.yaml\n", "ground": "lr: 0.1\nepoch_size: ten\n"},
            r"epoch_size: found 'ten'.*ground\.yaml",
        ),
        (
            {"top": "base: ground.yaml\n", "ground": "lr: 0.1\nepochs: 9\n"},
            r"epochs: found an unknown key.*ground\.yaml",
        ),
        (
            {"top": "base: ground.yaml\nlr: 0.1\nlr_base: 0.1\n", "ground": GROUND},
            "lr: found 0.1 and lr_base 0.1",
        ),
    ],
)
def test_mistakes_name_the_file(tmp_path: Path, texts: dict[str, str], said: str) -> None:
    write(tmp_path, **texts)
    with pytest.raises(RecipeError, match=said) as raised:
        parse(tmp_path / "top.yaml")
    assert "\n" not in str(raised.value)


def test_print_config_prints_the_whole_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, ground=GROUND, top="base: ground.yaml\nseed: 7\n")
    with pytest.raises(SystemExit) as ended:
        parse(tmp_path / "top.yaml", "--print_config", "--batch_size", "32")
    assert ended.value.code == 0
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    printed = parse(tmp_path / "printed.yaml")
    assert printed == parse(tmp_path / "top.yaml", "--batch_size", "32")
    assert (printed.system.seed, printed.data.batch_size) == (7, 32)
