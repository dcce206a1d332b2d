from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pytest

from mindcv_poolformer.config import Recipe, parse_recipe
from mindcv_poolformer.config.paths import expanded

ROOT = Path(__file__).resolve().parents[2]
# The least a recipe must say: a peak learning rate and epochs that hold its schedule.
VALID = "lr: 0.001\nepoch_size: 103\n"
Parse = Callable[..., Recipe]


def flat(recipe: Recipe) -> dict[str, object]:
    return {key: value for section in asdict(recipe).values() for key, value in section.items()}


def error_line(capsys: pytest.CaptureFixture[str], run: Callable[[], object]) -> str:
    """The one line that ``run`` ends on."""
    with pytest.raises(argparse.ArgumentError) as ending:
        run()
    assert capsys.readouterr() == ("", "")
    line = str(ending.value)
    assert line and "\n" not in line
    return line


@pytest.mark.parametrize(
    ("flags", "key", "expected"),
    [
        ("--lr 2e-3", "lr", 0.002),
        ("--lr=2", "lr", 2.0),
        ("--min_lr 0", "min_lr", 0.0),
        ("--mean -1 0 1e-1", "mean", (-1.0, 0.0, 0.1)),
        ("--scale 0.1 0.5", "scale", (0.1, 0.5)),
        ("--scale 0.1,0.5", "scale", (0.1, 0.5)),
        ("--scale=[0.1,0.5]", "scale", (0.1, 0.5)),
        ("--color_jitter 0.4", "color_jitter", 0.4),
        ("--color_jitter 0.1 0.2 0.3", "color_jitter", (0.1, 0.2, 0.3)),
        ("--color_jitter null", "color_jitter", None),
        ("--auto_augment None", "auto_augment", None),
        ("--auto_augment rand-n3-m9.5-inc1", "auto_augment", "rand-n3-m9.5-inc1"),
        ("--re_value 0.5", "re_value", 0.5),
        ("--ema", "ema", True),
        ("--ema true", "ema", True),
        ("--drop_overflow_update False", "drop_overflow_update", False),
        ("--shuffle=false", "shuffle", False),
        ("--distribute", "distribute", True),
        ("--distribute null", "distribute", None),
        ("--val_split no", "val_split", "no"),
        ("--opt ADAMW", "opt", "adamw"),
        ("--opt Lamb", "opt", "lamb"),
        ("--head_drop_rate 0.4", "head_drop_rate", 0.4),
        ("--seed 1 --seed 2", "seed", 2),
    ],
)
def test_flags_parse(parse: Parse, flags: str, key: str, expected: object) -> None:
    value = flat(parse(VALID, *flags.split()))[key]
    assert value == expected and type(value) is type(expected)


@pytest.mark.parametrize(
    ("line", "key", "expected"),
    [
        ("min_lr: 1e-6", "min_lr", 1e-6),
        ("scale: [8e-2, 1]", "scale", (0.08, 1.0)),
        ("ema: yes", "ema", True),
        ("shuffle: no", "shuffle", False),
        ("num_classes:", "num_classes", None),
        ("num_classes: None", "num_classes", None),
        ("distribute: off", "distribute", False),
        ("seed: 1_000", "seed", 1000),
        ("min_lr: .5e-3", "min_lr", 0.0005),
        ("re_value: 1e-1", "re_value", 0.1),
        ("color_jitter: [4e-1, 1, .5]", "color_jitter", (0.4, 1.0, 0.5)),
        ("val_split: no", "val_split", "no"),
        ("val_split: 010", "val_split", "010"),
        ("val_split: 1:30", "val_split", "1:30"),
        ("val_split: 2024-01-01", "val_split", "2024-01-01"),
        ("val_split: .inf", "val_split", ".inf"),
        ("resume: off", "resume", False),
        ("scheduler: Cosine_Decay", "scheduler", "cosine_decay"),
        ("device_target: cpu", "device_target", "CPU"),
        ("amp_level: o2", "amp_level", "O2"),
        ("interpolation: BICUBIC", "interpolation", "bicubic"),
        ("re_value: Random", "re_value", "pixel"),
        ("ckpt_save_policy: None", "ckpt_save_policy", None),
    ],
)
def test_yaml_values_parse(parse: Parse, line: str, key: str, expected: object) -> None:
    value = flat(parse(VALID + line))[key]
    assert value == expected and type(value) is type(expected)


def test_flags_win_wherever_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(VALID + "seed: 7\nbatch_size: 16\n")
    flags = ["--seed", "9", "--config", str(file), "--hflip", "0"]
    recipe = parse_recipe(flags, description="A test.", default_config="missing.yaml")
    values = (recipe.system.seed, recipe.data.batch_size, recipe.augmentation.hflip)
    assert values == (9, 16, 0.0)


def test_min_lr_is_held_against_what_decays_to_it(parse: Parse) -> None:
    assert parse(VALID, *"--scheduler multi_step_decay --lr 5e-7".split()).schedule.lr == 5e-7
    with pytest.raises(
        argparse.ArgumentError, match="min_lr: found 1e-06 with lr 5e-07, expected at most"
    ):
        parse(VALID, *"--scheduler cosine_decay --lr 5e-7".split())


def test_a_flag_replaces_the_files_other_key_of_a_pair(parse: Parse) -> None:
    schedule = parse(VALID, "--lr_base", "0.01").schedule
    assert (schedule.lr, schedule.lr_base) == (None, 0.01)
    schedule = parse(VALID.replace("lr:", "lr_base:"), "--lr", "0.01").schedule
    assert (schedule.lr, schedule.lr_base) == (0.01, None)
    model = parse(VALID + "pretrained: true\n", "--ckpt_path", "a.ckpt").model
    assert (model.pretrained, model.ckpt_path) == (False, "a.ckpt")
    model = parse(VALID + "ckpt_path: a.ckpt\n", "--pretrained", "true").model
    assert (model.pretrained, model.ckpt_path) == (True, "")
    assert parse(VALID + "pretrained: true\n", "--ckpt_path", "").model.pretrained


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ("--batch_size 0", ["batch_size", "'0'", "integer >= 1"]),
        ("--batch_size 3.5", ["batch_size", "'3.5'", "integer >= 1"]),
        ("--batch_size 4 5", ["batch_size", "4, 5", "one value"]),
        ("--batch_size", ["batch_size", "no value", "integer >= 1"]),
        ("--image_resize 31", ["image_resize", "31", ">= 32"]),
        ("--hflip 1.5", ["hflip", "1.5", ">= 0 and <= 1"]),
        ("--drop_path_rate 1", ["drop_path_rate", "'1'", ">= 0 and < 1", "null"]),
        ("--crop_pct 0", ["crop_pct", "'0'", "> 0 and <= 1"]),
        ("--lr nan", ["lr", "nan", "> 0"]),
        ("--lr inf", ["lr", "inf", "finite"]),
        ("--lr -1e-3", ["lr", "-1e-3", "> 0"]),
        ("--ema maybe", ["ema", "maybe", "true or false"]),
        ("--ema null", ["ema", "null", "true or false"]),
        ("--mode 2", ["mode", "'2'", "0 or 1"]),
        ("--device_target GPU", ["device_target", "GPU", "'Ascend', 'CPU'"]),
        ("--amp_level O1", ["amp_level", "O1", "'O0', 'O2', 'O3', 'auto'"]),
        ("--opt sgd", ["opt", "sgd", "'adamw' or 'lamb'"]),
        ("--scheduler step", ["scheduler", "step", "cosine_decay"]),
        ("--auto_augment rand-m9-x1", ["auto_augment", "rand-m9-x1", "rand-m9-mstd0.5-inc1"]),
        ("--color_jitter 0.1 0.2", ["color_jitter", "0.1, 0.2", "list of 3", "null"]),
        ("--scale 0.5", ["scale", "0.5", "list of 2"]),
        ("--scale 0.9 0.1", ["scale", "0.9", "lower bound first"]),
        ("--re_ratio 3 0.3", ["re_ratio", "3.0", "lower bound first"]),
        ("--epochs 3", ["epochs", "unknown", "epoch_size"]),
        ("--batch-size 3", ["batch-size", "unknown", "batch_size"]),
        ("-lr 3", ["-lr", "unknown"]),
        ("stray", ["stray", "--key value"]),
        ("--config /no/such.yaml", ["config", "/no/such.yaml", "recipe file"]),
        ("--ckpt_save_policy top_k", ["ckpt_save_policy", "top_k", "val_while_train"]),
        (
            "--ckpt_save_steps 1 --gradient_accumulation_steps 2",
            ["ckpt_save_steps", "1", "a multiple"],
        ),
        (
            "--ckpt_save_steps 5 --gradient_accumulation_steps 2",
            ["ckpt_save_steps", "5", "gradient_accumulation_steps 2"],
        ),
        ("--mixup 0.8 --batch_size 33", ["batch_size", "33", "mixup", "even"]),
        ("--cutmix 1 --batch_size 33", ["batch_size", "33", "cutmix", "even"]),
        ("--dataset_download", ["dataset_download", "imagenet", "digits"]),
        ("--in_channels 1", ["mean", "in_channels 1", "--mean"]),
        ("--in_channels 1 --mean 127.5", ["std", "in_channels 1", "--std"]),
        ("--loss_scale_type dynamic", ["loss_scale_type", "dynamic", "O0", "fixed"]),
        ("--flash_attention true --device_target CPU", ["flash_attention", "true", "Ascend"]),
        ("--hf32 true --device_target CPU", ["hf32", "true", "CPU", "false"]),
        ("--recompute true --drop_rate 0.1", ["recompute", "true", "drop_rate 0.1"]),
        ("--pretrained --ckpt_path a.ckpt", ["pretrained", "a.ckpt", "one source"]),
        ("--lr 1 --lr_base 1", ["lr", "lr_base", "one of them"]),
        ("--lr null", ["lr", "lr_base", "one of them"]),
        ("--min_lr 1", ["min_lr", "1.0", "at most lr"]),
        ("--seed 010", ["seed", "'010'", "decimal digits"]),
        ("--scale 0.1 01", ["scale", "'[0.1, 01]'", "decimal digits"]),
        ("--std 0.229 0.224 0.225", ["std", "0.229", "0-255", "58.395", "by 255"]),
        ("--mean 0.485 0.456 0.406", ["mean", "0.485", "0-255", "by 255"]),
        ("--in_channels 1 --mean 0 --std 0.5", ["std", "0.5", "0-255"]),
        ("--decay_epochs 102", ["epoch_size", "103", "warmup_epochs 3", "decay_epochs 102", "105"]),
        ("--warmup_prefix false --decay_epochs 104", ["epoch_size", "103", "decay_epochs 104"]),
        ("--warmup_epochs 103", ["epoch_size", "103", "warmup_epochs 103", "more epochs"]),
        (
            "--scheduler multi_step_decay --warmup_epochs 103",
            ["epoch_size", "103", "warmup_epochs 103", "more epochs"],
        ),
        ("--lr_epoch_stair true --warmup_steps 9", ["lr_epoch_stair", "warmup_steps 9", "false"]),
        (
            "--multi_step_decay_milestones 60 30",
            ["multi_step_decay_milestones", "[60, 30]", "ascending"],
        ),
        ("--score_thr 0.1", ["score_thr", "0.1", "classification", "detection"]),
        ("--img_scale 64 64", ["img_scale", "classification", "segmentation or detection"]),
        ("--rcnn_sampler_num 3", ["rcnn_sampler_num", "3", "integer >= 4"]),
        ("--loss_scale 0.5", ["loss_scale", "0.5", "number >= 1"]),
        ("--in_channels 2", ["in_channels", "'2'", "one of 1, 3, 4"]),
    ],
)
def test_bad_flags_stop_with_one_line(
    parse: Parse, capsys: pytest.CaptureFixture[str], flags: str, named: list[str]
) -> None:
    line = error_line(capsys, lambda: parse(VALID, *flags.split()))
    for part in named:
        assert part in line


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", ["nothing", "recipe.yaml"]),
        ("just words", ["str", "key: value"]),
        ("- lr", ["list", "key: value"]),
        ("lr: [1", ["recipe.yaml", "line 1"]),
        ("lr: 1\nseed: 3\nlr: 2", ["'lr'", "twice", "line 3"]),
        ("? [1]\n: 2", ["recipe.yaml", "unhashable"]),
        (b"lr: \xff\xfe", ["recipe.yaml"]),
        ("epochs: 3", ["epochs", "unknown", "epoch_size", "recipe.yaml"]),
        ("config: a.yaml", ["config", "unknown"]),
        ("3: 4", ["3", "unknown"]),
        ("lr: .inf", ["lr", "inf", "finite"]),
        ("lr: .nan", ["lr", "nan", "finite"]),
        ("mode: True", ["mode", "True", "0 or 1"]),
        ("batch_size: 64.0", ["batch_size", "64.0", "integer >= 1"]),
        ("batch_size: true", ["batch_size", "'true'", "integer >= 1"]),
        ("batch_size: 1e2", ["batch_size", "1e2", "integer >= 1"]),
        ("ema: 1", ["ema", "1", "true or false"]),
        ("val_split:", ["val_split", "None", "text"]),
        ("seed: 010", ["seed", "'010'", "integer >= 0", "decimal digits"]),
        ("seed: 1:30", ["seed", "'1:30'", "integer >= 0", "decimal digits"]),
        ("seed: 0x10", ["seed", "'0x10'", "integer >= 0", "decimal digits"]),
        ("re_value: 1:30", ["re_value", "'1:30'", "decimal digits"]),
        ("std: [58, 057, 57]", ["std", "[58, 057, 57]", "decimal digits"]),
        ("min_lr: 1e-3_0", ["min_lr", "1e-3_0", "finite number"]),
        ("mean: [1, 2, three]", ["mean", "[1, 2, three]", "finite number"]),
        ("data_dir: $NO_SUCH/x", ["data_dir", "$NO_SUCH/x", "NO_SUCH unset"]),
        ("data_dir: ${EMPTY}/x", ["data_dir", "${EMPTY}/x", "EMPTY unset"]),
        ("base: $NO_SUCH/x.yaml", ["base", "$NO_SUCH/x.yaml", "NO_SUCH unset"]),
        ("ckpt_path:", ["ckpt_path", "None", "text"]),
        ("std: [1, 0, 1]", ["std", "[1, 0, 1]", "> 0"]),
        ("mean: [1, null, 1]", ["mean", "None", "finite"]),
        ("lr: 1\nlr_base: 1", ["lr", "lr_base", "one of them"]),
        ("epoch_size: 200", ["lr", "lr_base", "neither"]),
        ("lr: 1\nepoch_size: 102\ndecay_epochs: 100", ["epoch_size", "102", "103"]),
    ],
)
def test_bad_files_stop_with_one_line(
    parse: Parse,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    text: str | bytes,
    named: list[str],
) -> None:
    monkeypatch.setenv("EMPTY", "")
    line = error_line(capsys, lambda: parse(text))
    for part in named:
        assert part in line


def test_std_and_mean_of_raw_pixels_are_taken(parse: Parse) -> None:
    augmentation = parse(VALID, "--mean", "0", "0", "0", "--std", "1", "1", "1").augmentation
    assert (augmentation.mean, augmentation.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("~/x", "/homes/me/x"),
        ("~", "/homes/me"),
        ("$DATA/x", "/data/x"),
        ("${DATA}x/$YEAR", "/datax/2024"),
        ("~no_such_user/x", "~no_such_user/x"),
        ("x/~", "x/~"),
        ("cost$/5$", "cost$/5$"),
        ("https://host/$DATA", "https://host/$DATA"),
    ],
)
def test_paths_are_read_as_by_a_shell(
    monkeypatch: pytest.MonkeyPatch, text: str, path: str
) -> None:
    for name, value in {"HOME": "/homes/me", "DATA": "/data", "YEAR": "2024"}.items():
        monkeypatch.setenv(name, value)
    assert expanded(text) == path


def test_every_key_that_is_a_path_is(parse: Parse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", "/data")
    keys = "data_dir train_split val_split ckpt_path cache_dir ckpt_save_dir resume".split()
    in_file = flat(parse(VALID + "".join(f"{key}: $DATA/x\n" for key in keys)))
    in_flags = flat(parse(VALID, *(f"--{key}=$DATA/x" for key in keys)))
    assert {in_file[key] for key in keys} == {in_flags[key] for key in keys} == {"/data/x"}


def test_recipes_too_are_found_by_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECIPES", str(tmp_path / "recipes"))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "ground.yaml").write_text(VALID + "seed: 7\n")
    (tmp_path / "top.yaml").write_text("base: $RECIPES/ground.yaml\n")
    recipe = parse_recipe(["-c", "~/top.yaml"], description="A test.", default_config="none")
    assert recipe.system.seed == 7


def test_a_path_that_is_no_text_survives_the_recipes_file(parse: Parse, tmp_path: Path) -> None:
    recipe = parse(VALID, "--data_dir", os.fsdecode(b"caf\xe9/010"), "--train_split", "010")
    (tmp_path / "again.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    assert parse((tmp_path / "again.yaml").read_text(encoding="utf-8")) == recipe


@dataclass(frozen=True)
class ExportOptions:
    """export: what is written

    Args:
        export_dir: folder of the bundle.
        overwrite: replace an existing bundle.
    """

    export_dir: Path = Path("bundle")
    overwrite: bool = False


def test_a_script_adds_flags_of_its_own(parse: Parse, tmp_path: Path, capsys) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(VALID)

    def run(*flags: str) -> object:
        return parse_recipe(
            flags, description="A test.", default_config=str(file), options=ExportOptions
        )

    recipe, options = run("--export_dir", "out", "--seed", "3", "--overwrite")
    assert options == ExportOptions(Path("out"), True)
    assert recipe.system.seed == 3
    assert run()[1] == ExportOptions()
    assert "maybe" in error_line(capsys, lambda: run("--overwrite", "maybe"))
    file.write_text(VALID + "overwrite: true\n")
    assert "overwrite: found an unknown key" in error_line(capsys, run)


def run_script(*flags: str) -> subprocess.CompletedProcess[str]:
    code = (
        "from mindcv_poolformer.config import parse_recipe\n"
        "from mindcv_poolformer.runtime.errors import run\n"
        "default = 'configs/poolformer_s12_digits.yaml'\n"
        "def main():\n"
        "    recipe = parse_recipe(None, description='A test.', default_config=default)\n"
        "    print(recipe.data.dataset)\n"
        "run(main)"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_process_without_flags_runs_the_demo_recipe() -> None:
    done = run_script()
    assert (done.returncode, done.stdout) == (0, "digits\n")


def test_a_process_with_a_bad_flag_ends_with_one_line_and_code_2() -> None:
    done = run_script("--batch_size", "none")
    expected = "error: batch_size: found 'none', expected an integer >= 1 (command line)\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)


def test_help_explains_every_key(parse: Parse, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        parse("", "--help", "--no_such_key")
    assert ending.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for section in fields(Recipe):
        assert f"{section.name}: " in text
        for key in fields(section.default_factory):
            after = text.rpartition(f" --{key.name} ")[2]
            explanation = after.partition("(type:")[0].split()
            assert len(explanation) > 3, f"{key.name} is not explained"
            assert "default:" in after.partition(" --")[0], key.name


def test_null_keys_follow_others(parse: Parse) -> None:
    def interpolation(*flags: str) -> str:
        return parse(VALID, *flags).augmentation.eval_interpolation

    assert interpolation("--interpolation", "bilinear") == "bilinear"
    assert interpolation("--interpolation", "random") == "bicubic"
    assert (
        interpolation("--interpolation", "random", "--val_interpolation", "bilinear") == "bilinear"
    )


def test_resume_takes_words_and_paths(parse: Parse) -> None:
    def resume(*flags: str) -> bool | str:
        return parse(VALID, *flags).checkpointing.resume

    assert resume() == "auto"
    assert resume("--resume", "false") is False
    assert resume("--resume", "runs/a/last.ckpt") == "runs/a/last.ckpt"
