from __future__ import annotations

import re
import sys
from dataclasses import fields

import pytest

import export
import validate
from mindcv_poolformer.config import Recipe, parse_recipe, shown
from mindcv_poolformer.tasks.validation import ValidationOptions

KEYS = {key.name for section in fields(Recipe) for key in fields(section.default_factory)}
TRAINING = {"lr", "lr_base", "mixup", "warmup_epochs", "opt", "ema", "hflip", "loss_scale", "seed"}
NEEDED = {"device_target", "data_dir", "val_split", "crop_pct", "model", "ckpt_path"}
SCRIPTS = {
    "validate": (validate.main, ValidationOptions, shown.VALIDATION),
    "export": (export.main, export.ExportOptions, shown.EXPORT),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_lists_what_the_command_uses(name, monkeypatch, capsys) -> None:
    main, options, keys = SCRIPTS[name]
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as ending:
        main()
    assert ending.value.code == 0
    text = capsys.readouterr().out
    listed = set(re.findall(r"--(\w+)", text.partition("\noptions:")[2]))
    assert not listed & TRAINING
    assert listed >= NEEDED
    assert listed == keys | {key.name for key in fields(options)} | {
        "help",
        "config",
        "print_config",
    }
    assert "Every key of a recipe is accepted as a flag" in " ".join(text.split())
    assert not re.search("^(loss|schedule|optimizer):", text, re.MULTILINE)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_key_that_help_leaves_out_counts(name, tmp_path) -> None:
    _, options, keys = SCRIPTS[name]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("lr: 0.1\nepoch_size: 9\nmixup: 0.5\n")
    found, _ = parse_recipe(
        ["--lr", "0.25", "--warmup_epochs", "2"],
        description="A test.",
        default_config=str(recipe),
        options=options,
        shown=keys,
    )
    assert (found.schedule.lr, found.schedule.warmup_epochs) == (0.25, 2)
    assert (found.schedule.epoch_size, found.augmentation.mixup) == (9, 0.5)


def test_shown_keys_are_keys_of_a_recipe() -> None:
    assert KEYS > shown.VALIDATION > shown.EXPORT
