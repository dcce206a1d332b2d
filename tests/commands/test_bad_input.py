"""Malformed calls: each ends with one line that names the culprit, and writes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import forked
import mindcv
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from PIL import Image
from safetensors.numpy import save_file
from scripts import ROOT, Ended, Running, write_images, write_workspace

from mindcv_poolformer.runtime.checkpoint_file import save_checkpoint

LONG_NAME = "n" * 300
# Files that are recipes in name only.
RECIPES: dict[str, str | bytes] = {
    "empty": "",
    "list": "- lr: 1\n",
    "twice": "lr: 0.1\nseed: 3\nlr: 0.2\n",
    "tab": "lr: 0.1\n\tseed: 3\n",
    "unknown": "learning_rate: 0.1\n",
    "type": "lr: 0.1\nepoch_size: ten\n",
    "nested": "optimizer: {lr: 0.1}\n",
    "mapping": "lr: {peak: 0.1}\n",
    "deep": "lr: " + 5000 * "[" + 5000 * "]",
    "endless": "lr: &a [*a]\n",
    "laughs": "mean: [&a [ha], "
    + ", ".join(f"&{name} [{9 * f'*{below}, '}]" for below, name in pairwise("abcdefghijkl"))
    + "]\n",
    "date": "seed: 2026-13-40\n",
    "digits": f"seed: {5000 * '9'}\n",
    "tag": "seed: !!int many\n",
    "code": "seed: !!python/object/apply:os.getpid []\n",
    "two": "lr: 0.1\n---\nlr: 0.2\n",
    "latin": "data_dir: caf\xe9\n".encode("latin-1"),
    "binary": bytes(range(256)),
    "null": 'data_dir: "da\\0ta"\n',
}


class Row(NamedTuple):
    """A call in the workspace, and how it ends.

    Scripts that take a recipe are given recipe.yaml where the call names none.
    """

    call: str
    code: int
    culprit: str


FLAGS = {
    "unknown flag": Row("train.py --learning_rate 1", 2, "learning_rate"),
    "unknown flag, validate": Row("validate.py --result file", 2, "result"),
    "unknown flag, export": Row("export.py --precison fp16", 2, "perhaps precision"),
    "unknown flag, predict": Row("predict.py data --topk 3", 2, "--topk"),
    "unicode flag": Row("train.py --modèle poolformer_s12", 2, "modèle"),
    "dash of a text processor": Row("train.py –lr 1", 2, "'–lr'"),
    "no value": Row("train.py --batch_size", 2, "batch_size"),
    "no value, predict": Row("predict.py data --top_k", 2, "--top_k"),
    "text for a number": Row("train.py --epoch_size ten", 2, "epoch_size"),
    "fraction for a count": Row("train.py --batch_size 3.5", 2, "batch_size"),
    "several values": Row("train.py --seed 1 2", 2, "seed"),
    "out of range": Row("train.py --lr -1", 2, "lr"),
    "too many": Row("train.py --epoch_size 9999999999", 2, "epoch_size"),
    "not a number": Row("train.py --weight_decay nan", 2, "weight_decay"),
    "infinite": Row("train.py --weight_decay 1e999", 2, "weight_decay"),
    "too large a seed": Row("train.py --seed 4294967296", 2, "seed"),
    "a word before any flag": Row("train.py recipe.yaml", 2, "'recipe.yaml'"),
    "two dashes": Row("train.py -- --lr 1", 2, "'--'"),
    "no such choice": Row("validate.py --compare_amp_level O1", 2, "compare_amp_level"),
    "no batch": Row("export.py --export_batch_size 0", 2, "export_batch_size"),
    "not true or false": Row("export.py --overwrite maybe", 2, "overwrite"),
    "no images": Row("predict.py", 2, "images"),
    "no count": Row("predict.py data --batch_size x", 2, "--batch_size"),
    "no such device": Row("predict.py data --device_target GPU", 2, "--device_target"),
    "no such command": Row("weights shrink", 2, "'shrink'"),
    "no classes": Row("weights convert s12.ckpt x.ckpt --num_classes 0", 2, "--num_classes"),
    "no target": Row("weights convert s12.ckpt", 2, "dest"),
    "no run": Row("summary", 2, "folder"),
    "two runs": Row("summary a b", 2, "b"),
    "absent device": Row("train.py --device_target Ascend", 1, "device_target"),
    "no launcher": Row("train.py --distribute true", 1, "distribute"),
    "no workers": Row("train.py --num_parallel_workers 0", 2, "num_parallel_workers"),
    "unknown model": Row("train.py --model poolformer_s13", 1, "poolformer_s13"),
    "unknown model, validate": Row("validate.py --model poolformer_s13", 1, "poolformer_s13"),
    "AIR on the CPU": Row("export.py --file_format AIR", 1, "file_format"),
}
CONTRADICTIONS = {
    "dynamic scale in O0": Row("train.py --loss_scale_type dynamic", 2, "loss_scale_type"),
    "two sources": Row("train.py --pretrained true --ckpt_path s12.ckpt", 2, "pretrained"),
    "top_k unvalidated": Row("train.py --ckpt_save_policy top_k", 2, "ckpt_save_policy"),
    "download": Row("train.py --dataset_download true", 2, "dataset_download"),
    "scale": Row("train.py --scale 0.9 0.1", 2, "scale"),
    "ratio": Row("train.py --ratio 2 0.5", 2, "ratio"),
    "re_scale": Row("train.py --re_scale 0.9 0.1", 2, "re_scale"),
    "re_ratio": Row("train.py --re_ratio 3 0.3", 2, "re_ratio"),
    "odd mixup": Row("train.py --mixup 0.8 --batch_size 7", 2, "mixup"),
    "odd cutmix": Row("train.py --cutmix 1 --batch_size 7", 2, "cutmix"),
    "mean of other channels": Row("validate.py --in_channels 1 --std 50", 2, "mean"),
    "std of other channels": Row("validate.py --in_channels 1 --mean 100", 2, "std"),
    "auto": Row("train.py --model convformer_s18 --amp_level auto", 1, "amp_level: found auto"),
    "auto, validate": Row(
        "validate.py --model caformer_s18 --val_amp_level auto", 1, "val_amp_level: found auto"
    ),
    "auto, compared": Row(
        "validate.py --model caformer_s18 --compare_amp_level auto",
        1,
        "compare_amp_level: found auto",
    ),
    "no lr": Row("train.py --lr null", 2, "neither lr nor lr_base"),
    "two lr": Row("train.py --lr 1 --lr_base 1", 2, "lr_base 1.0"),
    "min_lr above lr": Row("train.py --min_lr 1", 2, "min_lr"),
    "all warm-up": Row("train.py --warmup_epochs 3", 2, "warmup_epochs 3"),
    "long decay": Row("train.py --decay_epochs 3", 2, "decay_epochs 3"),
    "long decay without prefix": Row(
        "train.py --decay_epochs 4 --warmup_prefix false", 2, "warmup_prefix false"
    ),
}
RECIPE_ROWS = {
    "recipe: " + name: Row(f"train.py -c recipes/{name}.yaml", 2, culprit)
    for name, culprit in {
        "missing": "recipes/missing.yaml",
        "empty": "recipes/empty.yaml",
        "list": "recipes/list.yaml",
        "twice": "twice.yaml, line 3: key 'lr'",
        "tab": "tab.yaml, line 2",
        "unknown": "learning_rate",
        "type": "epoch_size",
        "nested": "optimizer",
        "mapping": "lr: found",
        "deep": "deep.yaml",
        "endless": "lr: found",
        "laughs": "mean: found",
        "date": "date.yaml",
        "digits": "digits.yaml",
        "tag": "tag.yaml",
        "code": "code.yaml, line 1",
        "two": "two.yaml, line 2",
        "latin": "latin.yaml",
        "binary": "binary.yaml",
        "null": "data_dir",
    }.items()
} | {
    "recipe: a folder": Row("validate.py -c data", 2, "'data'"),
    "recipe: endless device": Row("validate.py -c /dev/zero", 2, "/dev/zero"),
    "recipe: long name": Row(f"export.py -c {LONG_NAME}", 2, LONG_NAME),
}
PATHS = {
    "no data": Row("train.py --data_dir nowhere", 1, "nowhere/train"),
    "data is a file": Row("train.py --data_dir recipe.yaml", 1, "recipe.yaml/train"),
    "split is a file": Row("train.py --train_split ../recipe.yaml", 1, "recipe.yaml is not a"),
    "data with a long name": Row(f"train.py --data_dir {LONG_NAME}", 1, LONG_NAME),
    "run folder is a file": Row("train.py --ckpt_save_dir recipe.yaml", 1, "recipe.yaml"),
    "run folder below a file": Row("train.py --ckpt_save_dir recipe.yaml/run", 1, "recipe.yaml"),
    "run folder read-only": Row("train.py --ckpt_save_dir /proc/run", 1, "/proc/run"),
    "run folder with a long name": Row(f"train.py --ckpt_save_dir {LONG_NAME}", 1, LONG_NAME),
    "result below a file": Row(
        "validate.py --ckpt_path s12.ckpt --result_file recipe.yaml/x.json", 1, "recipe.yaml"
    ),
    "result is a folder": Row("validate.py --ckpt_path s12.ckpt --result_file data", 1, "data"),
    "result read-only": Row(
        "validate.py --ckpt_path s12.ckpt --result_file /proc/x.json", 1, "/proc/x.json"
    ),
    "result is a pipe": Row(
        "validate.py --ckpt_path s12.ckpt --result_file weights/pipe.ckpt", 1, "pipe.ckpt"
    ),
    "result with a long name": Row(
        f"validate.py --ckpt_path s12.ckpt --result_file {LONG_NAME}", 1, LONG_NAME
    ),
}
DATA = {
    "no split": Row("train.py --train_split training", 1, "data/training"),
    "no split, validate": Row(
        "validate.py --ckpt_path s12.ckpt --val_split validation", 1, "data/validation"
    ),
    "no class": Row("train.py --train_split none", 1, "data/none"),
    "empty class": Row("train.py --train_split empty", 1, "data/empty/class3"),
    "stranger in val": Row(
        "train.py --val_split stranger --val_while_train true", 1, "stranger/class9"
    ),
    "another model, validate": Row(
        "validate.py --ckpt_path s12.ckpt --model poolformer_s24", 1, "expected its poolformer_s12"
    ),
    "stranger, validate": Row(
        "validate.py --ckpt_path s12.ckpt --val_split stranger", 1, "stranger/class9"
    ),
    "few classes": Row("train.py --num_classes 2", 1, "num_classes: found 2 with 3 classes"),
    "large batch": Row("train.py --batch_size 49", 1, "48 images, expected at least 49"),
    "damaged image, validate": Row(
        "validate.py --ckpt_path s12.ckpt --val_split damaged", 1, "data/damaged/class0/00.png"
    ),
    "damaged image, export": Row(
        "export.py --ckpt_path s12.ckpt --val_split damaged", 1, "data/damaged/class0/00.png"
    ),
}
# Found when training has begun and has written to its folder, but nowhere else. Of an image that a
# thread reads, or validation, test_on_corrupt.py tells.
BEGUN_IN = "begun"
BEGUN = {
    "damaged image, processes": Row(
        f"train.py --mode 1 --ckpt_save_dir {BEGUN_IN} --train_split damaged "
        "--python_multiprocessing true --num_parallel_workers 2",
        1,
        "data/damaged/class0/00.png",
    )
}
CHECKPOINTS = {
    "checkpoint: missing": Row("train.py --ckpt_path mistyped.ckpt", 1, "mistyped.ckpt"),
    "checkpoint: a folder": Row("validate.py --ckpt_path data", 1, "data"),
    "checkpoint: empty": Row("train.py --ckpt_path weights/empty.ckpt", 1, "empty.ckpt"),
    "checkpoint: text": Row("validate.py --ckpt_path weights/text.ckpt", 1, "text.ckpt"),
    "checkpoint: truncated": Row("validate.py --ckpt_path weights/cut.ckpt", 1, "cut.ckpt"),
    "checkpoint: damaged": Row("export.py --ckpt_path weights/damaged.ckpt", 1, "damaged.ckpt"),
    "checkpoint: no such type": Row("train.py --ckpt_path weights/type.ckpt", 1, "type.ckpt"),
    "checkpoint: metadata": Row("validate.py --ckpt_path weights/facts.ckpt", 1, "facts.ckpt"),
    "checkpoint: odd metadata": Row("validate.py --ckpt_path weights/odd.ckpt", 1, "odd.ckpt"),
    "checkpoint: no PoolFormer": Row("train.py --ckpt_path weights/dense.ckpt", 1, "dense.ckpt"),
    "checkpoint: a pipe": Row("train.py --ckpt_path weights/pipe.ckpt", 1, "pipe.ckpt"),
    "checkpoint: a loop": Row("train.py --ckpt_path weights/loop.ckpt", 1, "loop.ckpt"),
    "checkpoint: endless": Row("train.py --ckpt_path weights/zero.ckpt", 1, "zero.ckpt"),
    "checkpoint: suffix": Row("train.py --ckpt_path recipe.yaml", 1, "'.yaml'"),
    "checkpoint: long name": Row(f"train.py --ckpt_path {LONG_NAME}", 1, LONG_NAME),
    "checkpoint: no server": Row(
        "train.py --cache_dir cache --ckpt_path http://127.0.0.1:1/x.ckpt", 1, "127.0.0.1:1/x.ckpt"
    ),
    "checkpoint: no port": Row(
        "train.py --cache_dir cache --ckpt_path http://localhost:port/x.ckpt", 1, "localhost:port"
    ),
    "checkpoint: no address": Row("train.py --ckpt_path http://[x/y.ckpt", 1, "http://[x/y.ckpt"),
    "checkpoint: other model": Row("train.py --ckpt_path s24.safetensors", 1, "poolformer_s24"),
    "checkpoint: other classes": Row(
        "validate.py --ckpt_path s12.ckpt --num_classes 5", 1, "head.weight"
    ),
    "checkpoint: none yet": Row("validate.py", 1, "run/best.ckpt"),
    "safetensors: empty": Row(
        "train.py --ckpt_path weights/empty.safetensors", 1, "empty.safetensors"
    ),
    "safetensors: text": Row(
        "train.py --ckpt_path weights/text.safetensors", 1, "text.safetensors"
    ),
    "safetensors: truncated": Row(
        "validate.py --ckpt_path weights/cut.safetensors", 1, "cut.safetensors"
    ),
    "safetensors: huge header": Row(
        "export.py --ckpt_path weights/huge.safetensors", 1, "huge.safetensors"
    ),
    "safetensors: other shapes": Row(
        "train.py --ckpt_path weights/shapes.safetensors", 1, "shapes.safetensors"
    ),
    "pickle: empty": Row("train.py --ckpt_path weights/empty.pth", 1, "empty.pth"),
    "pickle: text": Row("train.py --ckpt_path weights/text.bin", 1, "text.bin"),
    "nothing to resume": Row("train.py --resume true", 1, "last.ckpt"),
    "resume from nowhere": Row("train.py --resume mistyped.ckpt", 1, "mistyped.ckpt"),
    "resume from a folder": Row("train.py --resume data", 1, "data"),
    "resume from text": Row("train.py --resume weights/text.ckpt", 1, "text.ckpt"),
    "resume from bare weights": Row("train.py --resume s12.ckpt", 1, "s12.ckpt"),
}
IMAGES = {
    "image: missing": Row("predict.py --bundle bundle nowhere.png", 1, "nowhere.png"),
    "image: text": Row("predict.py --bundle bundle recipe.yaml", 1, "recipe.yaml"),
    "image: empty": Row("predict.py --bundle bundle images/empty.png", 1, "images/empty.png"),
    "image: truncated": Row("predict.py --bundle bundle images/cut.jpg", 1, "images/cut.jpg"),
    "image: second of two": Row(
        "predict.py --bundle bundle --batch_size 1 data/val/class0/00.png images/cut.jpg",
        1,
        "images/cut.jpg",
    ),
    "image: endless": Row("predict.py --bundle bundle /dev/zero", 1, "/dev/zero"),
    "image: long name": Row(f"predict.py --bundle bundle {LONG_NAME}", 1, LONG_NAME),
    "image: folder without any": Row("predict.py --bundle bundle recipes", 1, "recipes"),
}
BUNDLES = {
    "bundle: " + name: Row(f"predict.py --bundle {folder} data", 1, culprit)
    for name, folder, culprit in [
        ("missing", "nowhere", "nowhere"),
        ("a file", "recipe.yaml", "recipe.yaml"),
        ("long name", LONG_NAME, LONG_NAME),
        ("no description", "data", "data/model.json"),
        ("description is text", "bundles/text", "text/model.json"),
        ("description is a list", "bundles/list", "list/model.json"),
        ("of tomorrow", "bundles/tomorrow", "tomorrow/model.json"),
        ("no classes", "bundles/classes", "'classes'"),
        ("fewer classes", "bundles/fewer", "fewer/model.json"),
        ("files are null", "bundles/files", "files/model.json"),
        ("preprocessing", "bundles/preprocessing", "preprocessing/model.json"),
        ("batch size is text", "bundles/batch", "batch/model.json"),
        ("other SHA-256", "bundles/sha", "sha/model.mindir"),
        ("no MINDIR", "bundles/missing", "missing/model.mindir"),
        ("MINDIR truncated", "bundles/cut", "cut/model.mindir"),
        ("MINDIR is text", "bundles/words", "words/model.mindir"),
    ]
}
EXPORT = {
    "export: " + name: Row(f"export.py --ckpt_path s12.ckpt {flags}", 1, culprit)
    for name, flags, culprit in [
        ("target exists", "--export_dir bundle", "bundle"),
        ("target holds else", "--export_dir data --overwrite", "data"),
        ("target is a file", "--export_dir recipe.yaml --overwrite", "recipe.yaml"),
        ("target below a file", "--export_dir recipe.yaml/bundle", "recipe.yaml"),
        ("target read-only", "--export_dir /proc/bundle", "/proc/bundle"),
        ("target with a long name", f"--export_dir {LONG_NAME}", LONG_NAME),
        ("no samples", "--sample_images nowhere.png", "nowhere.png"),
        ("no folder of samples", "--val_split nothing", "data/nothing"),
        ("another preparation", "--crop_pct 0.5", "crop_pct"),
        ("another model", "--model poolformer_s24", "poolformer_s12"),
    ]
}
WEIGHTS = {
    "weights: " + name: Row(f"weights {words}", 1, culprit)
    for name, words, culprit in [
        ("no source", "convert nowhere.ckpt x.ckpt", "nowhere.ckpt"),
        ("target exists", "convert s12.ckpt s24.safetensors", "s24.safetensors"),
        ("target is a folder", "convert s12.ckpt data --overwrite", "data"),
        ("suffix", "convert s12.ckpt x.onnx", "'.onnx'"),
        ("suffix of another", "convert s12.ckpt x.ckpt --to safetensors", "'.ckpt'"),
        ("text", "convert weights/text.ckpt x.ckpt", "text.ckpt"),
        ("below a file", "convert s12.ckpt recipe.yaml/x.ckpt", "recipe.yaml"),
        ("read-only", "convert s12.ckpt /proc/x.safetensors", "/proc/x.safetensors"),
        ("long name", f"convert s12.ckpt {LONG_NAME}.ckpt", LONG_NAME),
        ("average of one", "average s12.ckpt x.ckpt", "s12.ckpt"),
        ("average of two models", "average s12.ckpt s24.safetensors x.ckpt", "s24.safetensors"),
        ("no average", "extract_ema s12.ckpt x.ckpt", "s12.ckpt"),
    ]
}
SUMMARY = {
    "summary: no folder": Row("summary nowhere", 1, "nowhere"),
    "summary: a file": Row("summary recipe.yaml", 1, "recipe.yaml"),
    "summary: no records": Row("summary data", 1, "data"),
    "summary: torn records": Row("summary runs/torn", 1, "runs/torn/metrics.jsonl"),
    "summary: torn results": Row("summary runs/results", 1, "runs/results/validation.json"),
}
EXPLAIN = {
    "explain: " + name: Row(f"explain.py {words}", code, culprit)
    for name, words, code, culprit in [
        ("no images", "--top_k 1 --model s12.ckpt", 2, "images"),
        ("no such image", "nowhere.png --model s12.ckpt", 1, "nowhere.png"),
        ("text", "recipe.yaml --model s12.ckpt", 1, "recipe.yaml"),
        ("truncated image", "images/cut.jpg --model s12.ckpt", 1, "images/cut.jpg"),
        ("no such stage", "data --stage 4 --model s12.ckpt", 2, "--stage"),
        ("no such class", "data/val/class0/00.png --classes dragon --model s12.ckpt", 1, "dragon"),
        ("no class of that number", "data/val/class0/00.png --classes 3 --model s12.ckpt", 1, "3"),
        ("none of the classes", "data --top_k 0 --model s12.ckpt", 2, "--top_k"),
        (
            "classes twice over",
            "data --classes class0 --top_k 1 --model s12.ckpt",
            2,
            "--classes and --top_k",
        ),
        ("opacity", "data --alpha 2 --model s12.ckpt", 2, "--alpha"),
        ("no edge", "data --image_size 0 --model s12.ckpt", 2, "--image_size"),
        ("a bundle", "data/val/class0/00.png --model bundle", 1, "bundle"),
        ("no model", "data/val/class0/00.png --model weights/text.ckpt", 1, "text.ckpt"),
        ("target exists", "data/val/class0/00.png --output data --model s12.ckpt", 1, "data"),
        (
            "target holds else",
            "data/val/class0/00.png --output data --overwrite --model s12.ckpt",
            1,
            "data",
        ),
        (
            "target below a file",
            "data/val/class0/00.png --output recipe.yaml/x --model s12.ckpt",
            1,
            "recipe.yaml",
        ),
        ("a long sheet", "data --top_k 3 --sheet --model s12.ckpt", 1, "--sheet"),
    ]
}
REPORT = {
    "report: " + name: Row(f"validate.py --ckpt_path s12.ckpt {flags}", 1, culprit)
    for name, flags, culprit in [
        ("exists", "--report recipes", "recipes"),
        ("holds else", "--report recipes --overwrite true", "recipes"),
        ("is a file", "--report recipe.yaml --overwrite true", "recipe.yaml"),
        ("below a file", "--report recipe.yaml/report", "recipe.yaml"),
        ("none to overwrite", "--overwrite true", "overwrite"),
    ]
}
COMPARE = {
    "compare: " + name: Row(f"training compare {words}", code, culprit)
    for name, words, code, culprit in [
        ("no run", "", 2, "RUN"),
        ("no folder", "nowhere", 1, "nowhere"),
        ("a file", "recipe.yaml", 1, "recipe.yaml"),
        ("no records", "data", 1, "data"),
        ("torn records", "runs/torn", 1, "runs/torn/metrics.jsonl"),
        ("twice", "runs/results runs/results", 1, "runs/results"),
        ("no picture", "runs/results --output curves.txt", 1, "curves.txt"),
        ("picture exists", "runs/results --output data/val/class0/00.png", 1, "00.png"),
    ]
}
MODELS = {
    "models: " + name: Row(f"models {words}", code, culprit)
    for name, words, code, culprit in [
        ("no command", "", 2, "COMMAND"),
        ("no such name", "summary poolformer_s13", 1, "poolformer_s13"),
        ("none of the name", "list resnet", 1, "resnet"),
        ("no edge", "summary poolformer_s12 --image_size 0", 2, "--image_size"),
        ("an edge too small", "summary poolformer_s12 --image_size 2", 1, "image_size"),
        ("an edge of another", "summary randformer_s12 --image_size 192", 1, "192"),
        ("a spatial fc", "summary metaformer_ppff_s12_224 --image_size 256", 1, "spatial fc"),
    ]
}
ROWS = {
    **FLAGS,
    **CONTRADICTIONS,
    **RECIPE_ROWS,
    **PATHS,
    **DATA,
    **BEGUN,
    **CHECKPOINTS,
    **IMAGES,
    **BUNDLES,
    **EXPORT,
    **WEIGHTS,
    **SUMMARY,
    **EXPLAIN,
    **REPORT,
    **COMPARE,
    **MODELS,
}
# One of each kind; the others are long together.
FAST = {
    "out of range",
    "no run",
    "two lr",
    "recipe: twice",
    "recipe: laughs",
    "run folder is a file",
    "result is a pipe",
    "checkpoint: text",
    "image: truncated",
    "bundle: MINDIR is text",
    "export: target is a file",
    "weights: read-only",
}
assert FAST <= ROWS.keys()


class Outcome(NamedTuple):
    """How a call ended, and what stood in the workspace before and after it."""

    ended: Ended
    before: dict[str, Any]
    after: dict[str, Any]


def words_of(call: str) -> list[str]:
    """Give the command line of a call."""
    script, *words = shlex.split(call)
    if not script.endswith(".py"):
        return ["-m", f"mindcv_poolformer.{script}", *words]
    recipe = (
        [] if script in ("predict.py", "explain.py") or "-c" in words else ["-c", "recipe.yaml"]
    )
    return [str(ROOT / script), *words, *recipe]


def contents(folder: Path) -> dict[str, Any]:
    """Everything below a folder, the content of small files with it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name, state = str(path.relative_to(folder)), path.lstat()
        if name.split(os.sep)[0] == BEGUN_IN:
            continue
        if path.is_dir():
            found[name] = "folder"
        else:
            small = path.is_file() and state.st_size < 1_000_000
            digest = hashlib.sha256(path.read_bytes()).hexdigest() if small else ""
            found[name] = (state.st_mode, state.st_size, state.st_mtime_ns, digest)
    return found


def call_in(folder: Path, row: Row) -> Outcome:
    """Make a row's call, and look at the folder before and after it."""
    before = contents(folder)
    words = words_of(row.call)
    if BEGUN_IN in words:  # how data workers end is part of it
        ended = Running(folder, [sys.executable, *words]).finish()
    else:
        ended = forked.call(folder, words)
    outcome = Outcome(ended, before, contents(folder))
    shutil.rmtree(folder / BEGUN_IN, ignore_errors=True)
    return outcome


def write_weights_files(folder: Path) -> None:
    """Write s12.ckpt, s24.safetensors, and all that is no such file, into weights/."""
    damaged = folder / "weights"
    damaged.mkdir()
    s12 = mindcv.create_model("poolformer_s12", num_classes=3)
    facts = {"model": "poolformer_s12", "num_classes": 3, "classes": ["class0", "class1", "class2"]}
    preprocessing = {
        "image_size": 32,
        "crop_pct": 0.875,
        "interpolation": "bilinear",
        "mean": [123.675, 116.28, 103.53],
        "std": [58.395, 57.12, 57.375],
        "pixel_range": [0, 255],
    }
    weights = {parameter.name: parameter for parameter in s12.get_parameters()}
    save_checkpoint(folder / "s12.ckpt", weights, {**facts, "preprocessing": preprocessing})
    other = nn.Dense(2, 2)
    ms.save_checkpoint(other, str(damaged / "dense.ckpt"))
    for name, text in (("facts", "{"), ("odd", '["head"]')):
        ms.save_checkpoint(other, str(damaged / f"{name}.ckpt"), append_dict={"metadata": text})
    s24 = mindcv.create_model("poolformer_s24", num_classes=3)
    save_file({p.name: p.asnumpy() for p in s24.get_parameters()}, folder / "s24.safetensors")
    values = {name: weight.asnumpy() for name, weight in weights.items()}
    save_file(values | {"norm.gamma": np.zeros(3, np.float32)}, damaged / "shapes.safetensors")

    whole = (folder / "s12.ckpt").read_bytes()
    (damaged / "cut.ckpt").write_bytes(whole[:1_000_000])
    (damaged / "damaged.ckpt").write_bytes(whole[:5000] + bytes(5000) + whole[10_000:])
    dense = (damaged / "dense.ckpt").read_bytes()
    (damaged / "type.ckpt").write_bytes(dense.replace(b"Float32", b"Float99"))
    whole = (folder / "s24.safetensors").read_bytes()
    (damaged / "cut.safetensors").write_bytes(whole[:1_000_000])
    (damaged / "huge.safetensors").write_bytes((1 << 62).to_bytes(8, "little") + whole[8:1000])
    for suffix in ("ckpt", "safetensors", "pth"):
        (damaged / f"empty.{suffix}").touch()
    for suffix in ("ckpt", "safetensors", "bin"):
        (damaged / f"text.{suffix}").write_text("These are no weights.\n" * 20)
    os.mkfifo(damaged / "pipe.ckpt")
    (damaged / "loop.ckpt").symlink_to("loop.ckpt")
    (damaged / "zero.ckpt").symlink_to("/dev/zero")


class Mean(nn.Cell):
    """The smallest network with an input and an output like a classifier's."""

    def construct(self, images: Tensor) -> Tensor:
        return images.mean(axis=(2, 3))


def write_bundles(folder: Path) -> None:
    """Write bundle/, which is one, and bundles/, which hold what is none."""
    whole = folder / "bundle"
    whole.mkdir()
    images = Tensor(shape=[None, 3, 32, 32], dtype=ms.float32)
    ms.export(Mean(), images, file_name=str(whole / "model.mindir"), file_format="MINDIR")
    mindir = (whole / "model.mindir").read_bytes()
    description: dict[str, Any] = {
        "format": 1,
        "model": "mean",
        "precision": "fp32",
        "input": {"shape": [None, 3, 32, 32]},
        "output": {"shape": [None, 3]},
        "preprocessing": {
            "image_size": 32,
            "crop_pct": 0.875,
            "interpolation": "bilinear",
            "mean": [0, 0, 0],
            "std": [1, 1, 1],
            "pixel_range": [0, 255],
        },
        "classes": ["red", "green", "blue"],
        "files": {"model.mindir": {"sha256": hashlib.sha256(mindir).hexdigest()}},
        "mindspore": ms.__version__,
    }
    (whole / "model.json").write_text(json.dumps(description))

    words = b"This is no graph.\n" * 9
    of_words = {"model.mindir": {"sha256": hashlib.sha256(words).hexdigest()}}
    misprepared = description["preprocessing"] | {"crop_pct": "most"}
    variants: dict[str, tuple[Any, bytes | None]] = {
        "list": ([], mindir),
        "tomorrow": (description | {"format": 99}, mindir),
        "classes": ({k: v for k, v in description.items() if k != "classes"}, mindir),
        "fewer": (description | {"classes": ["red"]}, mindir),
        "files": (description | {"files": None}, mindir),
        "preprocessing": (description | {"preprocessing": misprepared}, mindir),
        "batch": (description | {"input": {"shape": ["many", 3, 32, 32]}}, mindir),
        "sha": (description | {"files": of_words}, mindir),
        "missing": (description, None),
        "cut": (description, mindir[:-100]),
        "words": (description | {"files": of_words}, words),
        "text": (None, mindir),
    }
    for name, (told, graph) in variants.items():
        other = folder / "bundles" / name
        other.mkdir(parents=True)
        (other / "model.json").write_text(json.dumps(told) if told is not None else "{format: 1}")
        if graph is not None:
            (other / "model.mindir").write_bytes(graph)


def write_all(folder: Path) -> None:
    """Fill a folder with all that the rows name, right and wrong."""
    write_workspace(folder, model="poolformer_s12")
    (folder / "recipes").mkdir()
    for name, text in RECIPES.items():
        content = text.encode() if isinstance(text, str) else text
        (folder / "recipes" / f"{name}.yaml").write_bytes(content)
    for split in ("empty", "stranger", "damaged"):
        write_images(folder / "data" / split, 16)
    (folder / "data" / "none").mkdir()
    (folder / "data" / "empty" / "class3").mkdir()
    (folder / "data" / "stranger" / "class2").rename(folder / "data" / "stranger" / "class9")
    damaged = folder / "data" / "damaged" / "class0" / "00.png"
    damaged.write_bytes(damaged.read_bytes()[:600])
    images = folder / "images"
    images.mkdir()
    (images / "empty.png").touch()
    Image.open(folder / "data" / "val" / "class0" / "00.png").save(images / "cut.jpg")
    (images / "cut.jpg").write_bytes((images / "cut.jpg").read_bytes()[:900])
    (folder / "runs" / "torn").mkdir(parents=True)
    (folder / "runs" / "torn" / "metrics.jsonl").write_text('{"kind": "va\n')
    row = {"kind": "val", "step": 1, "epoch": 1, "top1": 50.0}
    (folder / "runs" / "results").mkdir()
    (folder / "runs" / "results" / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "runs" / "results" / "validation.json").write_text('{"amp_')
    write_weights_files(folder)
    write_bundles(folder)


def write_twice(folder: Path) -> queue.SimpleQueue[Path]:
    """Write two equal workspaces, for two calls at a time."""
    write_all(folder / "0")

    def pipes(parent: str, names: list[str]) -> list[str]:
        return [name for name in names if Path(parent, name).is_fifo()]

    shutil.copytree(folder / "0", folder / "1", symlinks=True, ignore=pipes)
    os.mkfifo(folder / "1" / "weights" / "pipe.ckpt")
    free: queue.SimpleQueue[Path] = queue.SimpleQueue()
    free.put(folder / "0")
    free.put(folder / "1")
    return free


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Outcome]]:
    """Give the outcome of a row. All rows that are to be tested run from now on, two at a time."""
    free = write_twice(tmp_path_factory.mktemp("bad_input"))

    def outcome(row: Row) -> Outcome:
        workspace = free.get()
        try:
            return call_in(workspace, row)
        finally:
            free.put(workspace)

    wanted = [
        item.callspec.params["name"]
        for item in request.session.items
        if item.path == request.path and item.originalname == test_one_line_and_nothing.__name__
    ]
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setenv("PYTHONPATH", str(ROOT))
        futures: dict[str, Future[Outcome]] = {
            name: pool.submit(outcome, ROWS[name]) for name in wanted
        }
        yield lambda name: futures[name].result()
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize(
    "name",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.long) for name in ROWS],
)
def test_one_line_and_nothing(name: str, outcomes: Callable[[str], Outcome]) -> None:
    row, outcome = ROWS[name], outcomes(name)
    ended = outcome.ended
    assert ended.code == row.code, ended.err
    assert re.fullmatch(rf"error: [^\n]*{re.escape(row.culprit)}[^\n]*\n", ended.err)
    assert "Traceback" not in ended.out
    assert outcome.after == outcome.before
