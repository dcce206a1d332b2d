from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from mindcv_poolformer.config import Recipe, parse_recipe
from mindcv_poolformer.config.recipe_file import read_recipe
from mindcv_poolformer.models import VARIANTS
from mindcv_poolformer.training.schedule import peak_learning_rate

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
# The least a recipe must say: a peak learning rate and epochs that hold its schedule.
VALID = "lr: 0.001\nepoch_size: 103\n"
Parse = Callable[..., Recipe]

MINDCV_RECIPE = """
# system
mode: 0
distribute: True
num_parallel_workers: 8
val_while_train: True
# dataset
dataset: 'imagenet'
data_dir: '/path/to/imagenet'
shuffle: True
dataset_download: False
batch_size: 128
drop_remainder: True
# augmentation
image_resize: 224
scale: [0.08, 1.0]
ratio: [0.75, 1.333]
hflip: 0.5
vflip: 0.0
interpolation: 'bilinear'
crop_pct: 0.9
color_jitter: [0.4, 0.4, 0.4]
re_prob: 0.25
mixup: 0.8
cutmix: 1.0
cutmix_prob: 1.0
auto_augment: 'randaug-m9-mstd0.5-inc1'
# model
model: 'poolformer_s12'
drop_rate: 0.0
drop_path_rate: 0.1
num_classes: 1000
pretrained: False
ckpt_path: ''
keep_checkpoint_max: 10
ckpt_save_dir: './ckpt'
epoch_size: 600
dataset_sink_mode: True
amp_level: 'O3'
# loss
loss: 'CE'
label_smoothing: 0.1
# lr scheduler
scheduler: 'cosine_decay'
lr: 0.0005
min_lr: 1e-06
warmup_epochs: 30
decay_epochs: 570
decay_rate: 0.1
# optimizer
opt: 'AdamW'
filter_bias_and_bn: True
momentum: 0.9
weight_decay: 0.05
loss_scale: 1024
use_nesterov: False
"""
# What YAML itself reads, except where a key's type says more.
MINDCV_VALUES = yaml.safe_load(MINDCV_RECIPE) | {
    "scale": (0.08, 1.0),
    "ratio": (0.75, 1.333),
    "color_jitter": (0.4, 0.4, 0.4),
    "min_lr": 0.000001,
    "opt": "adamw",
    "loss_scale": 1024.0,
}


def flat(recipe: Recipe) -> dict[str, object]:
    return {key: value for section in asdict(recipe).values() for key, value in section.items()}


def test_mindcvs_recipe_loads_unchanged(parse: Parse) -> None:
    values = flat(parse(MINDCV_RECIPE))
    assert len(MINDCV_VALUES) == 48
    for key, expected in MINDCV_VALUES.items():
        assert values[key] == expected, key
        assert type(values[key]) is type(expected), key


def test_mindcvs_older_spellings_load(parse: Parse) -> None:
    recipe = parse(
        VALID + "scheduler: warmup_cosine_decay\nmixup_mode: batch\nswitch_prob: 0.5\n"
        "re_value: random\ndataset: ''\n"
    )
    assert recipe.schedule.scheduler == "cosine_decay"
    assert recipe.augmentation.re_value == "pixel"
    assert recipe.data.dataset == "imagenet"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_recipe_loads_and_names_itself(path: Path) -> None:
    recipe = parse_recipe(["-c", str(path)], description="A test.", default_config="none.yaml")
    assert path.stem.startswith(recipe.model.model)
    header = path.read_text().split("\n\n")[0]
    assert "python train.py" in header and "Expected:" in header and "Time:" in header
    assert (
        f"Global batch {recipe.data.batch_size * (8 if recipe.system.distribute else 1)}:" in header
    )


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_recipe_says_only_what_is_its_own(path: Path) -> None:
    *bases, (_, own) = read_recipe(path, flat(Recipe()))
    below: dict[str, object] = {}
    for _, values in bases:
        below |= values
    assert [key for key, value in own.items() if below.get(key, object()) == value] == []


def test_official_recipes_carry_their_variants_numbers() -> None:
    published = {
        "s12": (0.1, 0.9),
        "s24": (0.1, 0.9),
        "s36": (0.2, 0.9),
        "m36": (0.3, 0.95),
        "m48": (0.4, 0.95),
    }
    for variant, numbers in published.items():
        path = ROOT / "configs" / f"poolformer_{variant}_ascend.yaml"
        recipe = parse_recipe([], description="A test.", default_config=str(path))
        assert (recipe.model.drop_path_rate, recipe.augmentation.crop_pct) == numbers
        assert (recipe.schedule.lr_base, recipe.schedule.epoch_size) == (1e-3, 310)
        assert (recipe.schedule.warmup_lr, recipe.schedule.min_lr) == (1e-6, 1e-5)


BASES = [
    name
    for name, facts in VARIANTS.items()
    if facts.is_metaformer
    and facts.image_size == 224
    and facts.num_classes == 1000
    and "in21" not in name
]


@pytest.mark.parametrize("variant", BASES)
def test_recipes_of_the_metaformers(variant: str) -> None:
    """The scripts of sail-sg/metaformer: 4096 images an update, LAMB for CAFormer."""
    path = ROOT / "configs" / f"{variant}_ascend.yaml"
    recipe = parse_recipe([], description="A test.", default_config=str(path))
    facts, model, optimizer = VARIANTS[variant], recipe.model, recipe.optimizer
    assert model.model == variant
    assert model.drop_path_rate == facts.drop_path_rate
    assert (model.head_drop_rate or 0.0) == facts.head_drop_rate
    assert (recipe.augmentation.crop_pct, recipe.augmentation.image_resize) == (1.0, 224)
    assert 8 * recipe.data.batch_size * optimizer.gradient_accumulation_steps == 4096
    assert peak_learning_rate(recipe.schedule, 4096) == (
        8e-3 if facts.family == "caformer" else 4e-3
    )
    deep = facts.family in ("convformer", "caformer")
    assert recipe.schedule.warmup_epochs == (20 if deep else 5)
    assert optimizer.opt == ("lamb" if facts.family == "caformer" else "adamw")
    if optimizer.opt == "lamb":  # the defaults of timm's
        assert (optimizer.eps, optimizer.clip_grad, optimizer.clip_value) == (1e-6, True, 1.0)
    assert f"{facts.published_top1} % top-1, published" in path.read_text()


# Drop path, and dropout in the head.
FINE_TUNED = {
    "convformer_s18": (0.3, 0.4),
    "convformer_s36": (0.5, 0.4),
    "convformer_m36": (0.8, 0.5),
    "convformer_b36": (0.8, 0.5),
    "caformer_s18": (0.3, 0.4),
    "caformer_s36": (0.5, 0.4),
    "caformer_m36": (0.7, 0.4),
    "caformer_b36": (0.8, 0.5),
}


@pytest.mark.parametrize("base", FINE_TUNED)
def test_fine_tuning_at_384_px(base: str) -> None:
    """The scripts of sail-sg/metaformer: 1024 images an update, one rate, no mixing."""
    path = ROOT / "configs" / f"{base}_384_finetune_ascend.yaml"
    recipe = parse_recipe([], description="A test.", default_config=str(path))
    model, optimizer, augmentation = recipe.model, recipe.optimizer, recipe.augmentation
    assert model.model == f"{base}_384"
    assert (model.drop_path_rate, model.head_drop_rate) == FINE_TUNED[base]
    assert (augmentation.image_resize, augmentation.mixup, augmentation.cutmix) == (384, 0, 0)
    assert 8 * recipe.data.batch_size * optimizer.gradient_accumulation_steps == 1024
    assert (recipe.schedule.scheduler, recipe.schedule.warmup_epochs) == ("constant", 0)
    lamb = base.startswith("caformer")
    assert (optimizer.opt, recipe.schedule.lr) == (("lamb", 1e-4) if lamb else ("adamw", 5e-5))
    assert optimizer.clip_grad == lamb  # timm's LAMB clips by itself
    assert f"{VARIANTS[model.model].published_top1} % top-1, published" in path.read_text()


def test_resolved_recipe_reads_back_equal(parse: Parse) -> None:
    first = parse(
        MINDCV_RECIPE,
        "--re_value=pixel",
        "--eps=1e-12",
        "--num_classes=null",
        "--ckpt_path=null",
        "--mean=[0.0, -1e-7, 3.0]",
    )
    assert parse(first.to_yaml()) == first
    assert set(yaml.safe_load(first.to_yaml())) == set(flat(first))


@pytest.mark.parametrize(
    ("lines", "key", "expected"),
    [
        ("dynamic_loss_scale: True\namp_level: O2", "loss_scale_type", "dynamic"),
        ("dynamic_loss_scale: False", "loss_scale_type", "fixed"),
        ("warmup_factor: 0.1", "warmup_lr", 0.1 * 0.002),
        ("warmup_factor: 0", "warmup_lr", 0.0),
        ("drop_rate: null", "drop_rate", 0.0),
        ("drop_rate: None", "drop_rate", 0.0),
        (
            "num_samples: null\naug_repeats: 0\naug_splits: 0\nthree_augment: False\n"
            "num_cycles: 1\ncycle_decay: 1.0\nmulti_step_decay_milestones: [30, 60]\n"
            "aux_factor: 0.0\nreduction: mean\nresume_opt: False\nenable_modelarts: False",
            "warmup_lr",
            0.0,
        ),
    ],
)
def test_keys_of_mindcv_that_say_the_same(
    parse: Parse, lines: str, key: str, expected: object
) -> None:
    assert flat(parse(f"lr: 0.002\nepoch_size: 103\n{lines}\n"))[key] == expected


def test_keys_of_mindcv_as_flags(parse: Parse) -> None:
    text = "lr: 0.002\nepoch_size: 103\nwarmup_factor: 0.1\n"
    assert parse(text, "--lr", "0.01").schedule.warmup_lr == pytest.approx(0.001)
    assert parse(text, "--warmup_lr", "0.3").schedule.warmup_lr == 0.3
    assert parse(text, "--warmup_factor=0.5").schedule.warmup_lr == 0.001
    recipe = parse(text, "--dynamic_loss_scale", "--amp_level", "O3", "--aug_repeats", "1")
    assert recipe.system.loss_scale_type == "dynamic"
    assert "warmup_factor" not in recipe.to_yaml()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("aug_repeats: 3", "aug_repeats: found '3', expected 0: "),
        ("reduction: sum", "reduction: found 'sum', expected mean: "),
        ("resume_opt: True", "resume_opt: found 'True', expected false: "),
        ("dynamic_loss_scale: 2", "dynamic_loss_scale: found '2', expected true or false"),
        ("dynamic_loss_scale: on\nloss_scale_type: fixed", "found it with loss_scale_type"),
        ("warmup_factor: 2", "warmup_factor: found '2', expected a number >= 0 and <= 1"),
        ("warmup_factor: 0.1\nwarmup_lr: 0.1", "warmup_factor: found it with warmup_lr"),
        ("aug_repeat: 0", "aug_repeat: found an unknown key"),
    ],
)
def test_keys_of_mindcv_that_ask_for_more(parse: Parse, line: str, said: str) -> None:
    with pytest.raises(ArgumentError, match=said) as error:
        parse(f"lr: 0.002\nepoch_size: 103\n{line}\n")
    assert "recipe.yaml)" in str(error.value)


def test_a_warmup_factor_needs_a_learning_rate(parse: Parse) -> None:
    with pytest.raises(ArgumentError, match="warmup_factor: found 0.1 without lr"):
        parse("lr_base: 0.002\nepoch_size: 103\nwarmup_factor: 0.1\n")
