"""train.py and validate.py on scenes: ends that are equal, whatever happened on the way."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
from mindspore import Tensor
from PIL import Image
from scripts import MPIRUN, Ended, Running, assert_equal_weights, command, run, weights
from small_network import SMALL_SEGMENTER

from mindcv_poolformer.runtime.checkpoint_file import read_checkpoint, save_checkpoint

pytestmark = pytest.mark.long

CLASSES = ("ground", "disc", "bar")
RECIPE = f"""\
task: segmentation
model: {SMALL_SEGMENTER}
device_target: CPU
mode: 1
num_parallel_workers: 1
python_multiprocessing: false
dataset: scenes
data_dir: scenes
reduce_zero_label: false
img_scale: [64, 40]
crop_size: [32, 32]
size_divisor: 32
batch_size: 4
neck_channels: 12
head_channels: 8
scheduler: polynomial_decay
epoch_size: 2
epoch_steps: 2
ckpt_save_steps: 1
lr: 0.003
min_lr: 0.0
warmup_epochs: 0
filter_bias_and_bn: false
val_while_train: true
log_interval: 1
"""
GRAPH = {"mode": 0}  # compiling takes longer than all else, so a graph is there for its own sake


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14 scenes, and the run of 4 steps that nothing happened to."""
    folder = tmp_path_factory.mktemp("segmentation")
    for split, count in (("train", 14), ("val", 3)):
        for kind in ("images", "annotations"):
            (folder / "scenes" / kind / split).mkdir(parents=True)
        for number in range(count):
            rng = np.random.default_rng([number, count])
            label = np.zeros((40, 48), np.uint8)
            rows, columns = np.ogrid[:40, :48]
            label[(rows - rng.integers(8, 32)) ** 2 + (columns - 12) ** 2 < 60] = 1
            label[:, 30 + number % 10 :][:, :6] = 2
            label[:2] = 255
            picture = 80 * np.minimum(label, 2)[..., None] + rng.integers(0, 60, (40, 48, 3))
            for kind, pixels in (("images", picture.astype(np.uint8)), ("annotations", label)):
                path = folder / "scenes" / kind / split / f"{number:02d}.png"
                Image.fromarray(pixels).save(path)
    (folder / "scenes" / "classes.txt").write_text("\n".join(CLASSES))
    (folder / "recipe.yaml").write_text(RECIPE)
    ended = forked.run("train.py", folder, ckpt_save_dir="whole")
    assert (ended.code, ended.err) == (0, "")
    assert f"{SMALL_SEGMENTER}: 14 training images of 3 classes, 2 epochs of 2 steps" in ended.out
    assert "best: mIoU " in ended.out
    return folder


def records(folder: Path) -> list[dict[str, Any]]:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]


def test_killed_within_an_epoch(workspace: Path) -> None:
    running = Running(workspace, command("train.py", ckpt_save_dir="killed"))
    assert running.process.stdout is not None
    for line in running.process.stdout:
        if "step 2/2" in line:
            break
    running.kill()
    assert (workspace / "killed" / "last.ckpt").exists()
    ended = forked.run("train.py", workspace, ckpt_save_dir="killed")
    assert (ended.code, ended.err) == (0, "") and "going on after step" in ended.out
    for name in ("last.ckpt", "best.ckpt"):
        assert_equal_weights(workspace / "killed" / name, workspace / "whole" / name)
    assert records(workspace / "killed") == records(workspace / "whole")


def test_two_ranks_follow_one(workspace: Path) -> None:
    """Their batch norms share statistics; dropout and crops are drawn by rank, so none is drawn.

    A graph follows what is run op by op.
    """
    still = {
        "head_dropout": 0.0,
        "ratio_range": (1.0, 1.0),
        "crop_size": (40, 48),
        "hflip": 0.0,
        "photometric_distortion": False,
        "ckpt_save_steps": None,
        "val_while_train": False,
    }
    alone = forked.run("train.py", workspace, ckpt_save_dir="alone", **still)
    shared = {"batch_size": 2, **GRAPH, **still}
    both = run("train.py", workspace, ranks=2, ckpt_save_dir="both", **shared)
    assert (alone.code, alone.err, both.code, both.err) == (0, "", 0, "")
    found, expected = records(workspace / "both"), records(workspace / "alone")
    ours, theirs = ([row["loss"] for row in rows] for rows in (found, expected))
    assert len(ours) == 4 and np.ptp(ours) > 0.02
    np.testing.assert_allclose(ours, theirs, atol=2e-3)
    ours, theirs = (weights(workspace / name / "last.ckpt") for name in ("both", "alone"))
    running = [name for name in ours if name.endswith(("moving_mean", "moving_variance"))]
    assert len(running) == 14
    for name in running:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=0.02, atol=1e-3)


@pytest.fixture(scope="module")
def validated(workspace: Path) -> Ended:
    return forked.run(
        "validate.py",
        workspace,
        ckpt_path="whole/best.ckpt",
        result_file="result.json",
        report="report",
    )


def test_validation_finds_what_the_run_found(workspace: Path, validated: Ended) -> None:
    assert (validated.code, validated.err) == (0, "")
    facts = json.loads((workspace / "result.json").read_text())
    best = max((row["mIoU"], row["epoch"]) for row in records(workspace / "whole") if "mIoU" in row)
    assert facts["mIoU"] == best[0]
    assert facts["images"] == 3
    assert list(facts["classes"]) == list(CLASSES)
    assert f"O0: mIoU {facts['mIoU']:.2f} %" in validated.out


def test_graphs_of_two_levels_find_the_same(workspace: Path, validated: Ended) -> None:
    keys = {"ckpt_path": "whole/best.ckpt", "compare_amp_level": "O3", **GRAPH}
    ended = forked.run("validate.py", workspace, result_file="graphs.json", **keys)
    assert (ended.code, ended.err) == (0, "")
    expected, facts = (
        json.loads((workspace / name).read_text()) for name in ("result.json", "graphs.json")
    )
    assert facts["mIoU"] == pytest.approx(expected["mIoU"], abs=0.05)
    assert facts["compared"]["mIoU"] == pytest.approx(expected["mIoU"], abs=3)
    assert facts["agreement"] > 97
    assert re.search(r"O0 and O3 agree on (9\d\.\d\d|100\.00) % of the pixels", ended.out)


def test_the_report_holds_the_labels(workspace: Path, validated: Ended) -> None:
    """From its PNGs alone, the IoU of each class by its definition."""
    report = workspace / "report"
    with (report / "per_class.csv").open() as file:
        told = {row["class"]: row["iou"] for row in csv.DictReader(file)}
    inside, union = np.zeros(3), np.zeros(3)
    for path in sorted((workspace / "scenes" / "annotations" / "val").iterdir()):
        label, said = (np.asarray(Image.open(p)) for p in (path, report / "labels" / path.name))
        for index in range(3):
            ours, theirs = (x[label != 255] == index for x in (said, label))
            inside[index] += (ours & theirs).sum()
            union[index] += (ours | theirs).sum()
    for name, iou in zip(CLASSES, 100 * inside / union, strict=True):
        assert float(told[name]) == pytest.approx(iou, abs=1e-3)
    names = {path.name for path in report.iterdir()}
    assert {"index.html", "report.json", "confusion.png", "worst.png", "coloured"} <= names


def test_two_ranks_validate_as_one(workspace: Path, validated: Ended) -> None:
    ended = run(
        "validate.py",
        workspace,
        ranks=2,
        ckpt_path="whole/best.ckpt",
        result_file="two.json",
        report="two",
    )
    assert (ended.code, ended.err) == (0, "")
    one, two = (json.loads((workspace / name).read_text()) for name in ("result.json", "two.json"))
    assert [one[key] for key in ("images", "mIoU", "mAcc", "aAcc", "classes")] == [
        two[key] for key in ("images", "mIoU", "mAcc", "aAcc", "classes")
    ]
    labels = sorted((workspace / "report" / "labels").iterdir())
    assert len(labels) == 3
    for path in labels:
        assert path.read_bytes() == (workspace / "two" / "labels" / path.name).read_bytes()


def test_a_report_that_ranks_do_not_share_is_refused(workspace: Path) -> None:
    """Each rank in a folder of its own, as on two hosts that share none."""
    for name in ("a", "b"):
        (workspace / name).mkdir()
    config = {"config": workspace / "recipe.yaml", "data_dir": workspace / "scenes"}
    words = command("validate.py", ckpt_path=workspace / "whole/best.ckpt", report="r", **config)
    first, second = (["1", "-wdir", str(workspace / name), *words] for name in ("a", "b"))
    ended = Running(workspace, [*MPIRUN, *first, ":", "-n", *second]).finish()
    assert ended.code == 1
    said = "error: report: found r to be one place for 1 of 2 ranks, expected a folder that all"
    assert said in ended.err and "Traceback" not in ended.err
    assert [list((workspace / name).iterdir()) for name in ("a", "b")] == [[], []]


def test_a_label_of_another_size_is_one_line(workspace: Path) -> None:
    shutil.copytree(workspace / "scenes", workspace / "odd")
    label = workspace / "odd" / "annotations" / "train" / "03.png"
    Image.new("L", (47, 40)).save(label)
    keys = {"data_dir": "odd", "val_while_train": False}
    ended = forked.run("train.py", workspace, ckpt_save_dir="odd_run", **keys)
    assert ended.code == 1
    assert re.fullmatch(r"error: label [^\n]*03\.png: found 47 x 40 pixels, [^\n]*\n", ended.err)


def test_as_many_classes_as_have_names(workspace: Path) -> None:
    ended = forked.run("train.py", workspace, ckpt_save_dir="more", num_classes=4)
    said = "error: num_classes: found 4 with 3 classes in scenes, expected 3\n"
    assert (ended.code, ended.err) == (1, said)
    best = read_checkpoint(workspace / "whole" / "best.ckpt")
    values: dict[str, Tensor] = dict(best.weights)
    for name in ("decode_head.conv_seg.weight", "decode_head.conv_seg.bias"):
        value = values[name].asnumpy()
        values[name] = Tensor(np.resize(value, (4, *value.shape[1:])))
    save_checkpoint(workspace / "four.ckpt", values, best.metadata | {"num_classes": 4})
    ended = forked.run("validate.py", workspace, ckpt_path="four.ckpt")
    said = "error: classes of the weights: found 4 with 3 classes in scenes, expected 3\n"
    assert (ended.code, ended.err) == (1, said)


def test_a_finished_run_is_left_as_it_is(workspace: Path) -> None:
    before = (workspace / "whole" / "last.ckpt").read_bytes()
    ended = forked.run("train.py", workspace, ckpt_save_dir="whole")
    assert (ended.code, ended.err) == (0, "") and "the run is complete" in ended.out
    assert (workspace / "whole" / "last.ckpt").read_bytes() == before
