"""train.py and validate.py on pictures with objects: equal ends, and true numbers."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
from coco_files import annotation, picture, write
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scripts import Ended, Running, assert_equal_weights, command, run
from small_network import SMALL_DETECTOR

from mindcv_poolformer.runtime.checkpoint_file import read_checkpoint

pytestmark = pytest.mark.long

MASK_RCNN = SMALL_DETECTOR.replace("retinanet", "mask_rcnn")
CATEGORIES = [{"id": 7, "name": "disc"}, {"id": 2, "name": "bar"}]
# Wide pictures and others on one square canvas: one graph for both.
RECIPE = f"""\
task: detection
model: {SMALL_DETECTOR}
device_target: CPU
mode: 1
num_parallel_workers: 1
python_multiprocessing: false
dataset: coco
data_dir: coco
img_scale: [64, 64]
canvas: [64, 64]
batch_size: 4
neck_channels: 8
stacked_convs: 1
nms_pre: 50
scheduler: multi_step_decay
multi_step_decay_milestones: [1]
decay_rate: 0.5
epoch_size: 2
epoch_steps: 2
ckpt_save_steps: 1
lr: 0.01
warmup_steps: 1
filter_bias_and_bn: false
val_while_train: true
ckpt_save_policy: top_k
log_interval: 1
"""
GRAPH = {"mode": 0}  # compiling takes longer than all else, so a graph is there for its own sake
GRAPH_RUN = {"val_while_train": False, "ckpt_save_policy": None, **GRAPH}


def write_split(root: Path, split: str, count: int) -> None:
    """Pictures of discs and bars; the second has none, the third more than a hundred."""
    images, objects = [], []
    (root / split).mkdir(parents=True)
    for number in range(count):
        rng = np.random.default_rng([number, count])
        width, height = (64, 48) if number % 3 else (44, 60)
        images.append(picture(100 + number, width, height))
        pixels = rng.integers(0, 60, (height, width, 3))
        wanted = {1: 0, 2: 120}.get(number, 3)
        for place in range(wanted):
            edge = 3 if wanted > 100 else int(rng.integers(28, 40))
            x, y = (int(rng.integers(0, size - edge)) for size in (width, height))
            kind = CATEGORIES[place % 2]["id"]
            pixels[y : y + edge, x : x + edge, place % 2] = 220
            objects.append(annotation(len(objects) + 1, 100 + number, kind, x, y, edge, edge))
        Image.fromarray(pixels.astype(np.uint8)).save(root / split / images[-1]["file_name"])
    content = {"images": images, "annotations": objects, "categories": CATEGORIES}
    write(root / "annotations" / f"instances_{split}.json", content)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """13 pictures, and the run of 4 steps that nothing happened to."""
    folder = tmp_path_factory.mktemp("detection")
    write_split(folder / "coco", "train", 14)
    write_split(folder / "coco", "val", 4)
    (folder / "recipe.yaml").write_text(RECIPE)
    ended = forked.run("train.py", folder, ckpt_save_dir="whole")
    assert (ended.code, ended.err) == (0, "")
    assert f"{SMALL_DETECTOR}: 13 training images of 2 classes, 2 epochs of 2 steps" in ended.out
    assert "pictures left out: 1 without an object" in ended.out
    assert "best: box AP " in ended.out
    return folder


def records(folder: Path) -> list[dict[str, Any]]:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]


def test_it_follows_the_schedule(workspace: Path) -> None:
    rows = [row for row in records(workspace / "whole") if row["kind"] == "train"]
    rates = [row["lr"] for row in rows]
    np.testing.assert_allclose(rates, [0, 0.01, 0.005, 0.005], rtol=1e-6)
    assert len({row["loss"] for row in rows}) == 4


@pytest.fixture(scope="module")
def graph(workspace: Path) -> Path:
    """The folder of a run as a graph."""
    ended = forked.run("train.py", workspace, ckpt_save_dir="graph", **GRAPH_RUN)
    assert (ended.code, ended.err) == (0, "")
    return workspace / "graph"


def test_a_graph_learns_as_its_operators_do(workspace: Path, graph: Path) -> None:
    """The last two of four losses are of weights that have been trained."""
    expected = [row["loss"] for row in records(workspace / "whole") if row["kind"] == "train"]
    found = [row["loss"] for row in records(graph)]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_graph_goes_on_within_an_epoch(workspace: Path, graph: Path) -> None:
    """As a run that has been killed before its last step."""
    shutil.copytree(graph, workspace / "going_on")
    (workspace / "going_on" / "previous.ckpt").replace(workspace / "going_on" / "last.ckpt")
    ended = forked.run("train.py", workspace, ckpt_save_dir="going_on", **GRAPH_RUN)
    assert (ended.code, ended.err) == (0, "") and "going on after step 3" in ended.out
    assert_equal_weights(workspace / "going_on" / "last.ckpt", graph / "last.ckpt")
    assert records(workspace / "going_on") == records(graph)


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


@pytest.fixture(scope="module")
def validated(workspace: Path) -> Ended:
    return forked.run(
        "validate.py",
        workspace,
        ckpt_path="whole/best.ckpt",
        score_thr=0.0,
        compare_amp_level="O3",
        **GRAPH,
        result_file="result.json",
        report="report",
    )


NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def scores_of_pycocotools(workspace: Path, report: str, kind: str) -> dict[str, float]:
    """By its own reader and scorer, of the file of results that anybody could send in."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(workspace / "coco" / "annotations" / "instances_val.json"))
        found = coco.loadRes(str(workspace / report / f"results.{kind}.json"))
        evaluation = COCOeval(coco, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    scores = zip(NAMES, 100 * evaluation.stats, strict=True)
    return {name: score for name, score in scores if score >= 0}


def assert_scores(facts: dict[str, Any], kind: str, theirs: dict[str, float]) -> None:
    ours = {k.removeprefix(f"{kind}_"): v for k, v in facts.items() if k.startswith(f"{kind}_")}
    assert ours == pytest.approx(theirs, abs=1e-9) and max(ours.values()) > 0


def test_the_numbers_are_those_of_pycocotools(workspace: Path, validated: Ended) -> None:
    assert (validated.code, validated.err) == (0, "")
    facts = json.loads((workspace / "result.json").read_text())
    assert_scores(facts, "box", scores_of_pycocotools(workspace, "report", "bbox"))
    assert facts["images"] == 4
    assert set(facts["compared"]) >= {"amp_level", "box_AP", "box_AR100"}
    results = json.loads((workspace / "report" / "results.bbox.json").read_text())
    assert {row["category_id"] for row in results} == {2, 7}
    assert re.search(r"^AP +0\.50:0\.95 +all +100 ", validated.out, re.MULTILINE)
    assert re.search(r"^disc +\d", validated.out, re.MULTILINE)


def test_masks_are_trained_and_scored(workspace: Path) -> None:
    """Mask R-CNN, by the same commands; of its boxes and of its masks the numbers are true."""
    keys = {
        "model": MASK_RCNN,
        "stacked_convs": 4,
        "lr": 0.0005,
        "rpn_max_per_img": 20,
        "rpn_sampler_num": 32,
        "rcnn_sampler_num": 16,
        "max_per_img": 20,
        "score_thr": 0.0,
        "epoch_size": 1,
    }
    ended = forked.run("train.py", workspace, ckpt_save_dir="masks", **keys)
    assert (ended.code, ended.err) == (0, "")
    assert read_checkpoint(workspace / "masks" / "best.ckpt").metadata["limits"] == {
        "proposals_per_level": 50,
        "proposals": 20,
        "score_threshold": 0.0,
        "iou_threshold": 0.5,
        "detections": 20,
    }
    (told,) = (row for row in records(workspace / "masks") if row["kind"] == "val")
    ended = forked.run(
        "validate.py",
        workspace,
        ckpt_path="masks/best.ckpt",
        result_file="masks.json",
        report="masks_report",
        **keys,
    )
    assert (ended.code, ended.err) == (0, "")
    facts = json.loads((workspace / "masks.json").read_text())
    for kind, name in (("box", "bbox"), ("mask", "segm")):
        assert_scores(facts, kind, scores_of_pycocotools(workspace, "masks_report", name))
        assert facts[f"{kind}_AP"] == told[f"{kind}_AP"]
    assert "mask AP" in ended.out

    # All pictures are padded to 64 x 64, which is the bundle's size too.
    names = ("model", "stacked_convs", "rpn_max_per_img", "max_per_img", "score_thr")
    limits = {name: keys[name] for name in names}
    exported = forked.run(
        "export.py", workspace, ckpt_path="masks/best.ckpt", export_dir="masks_bundle", **limits
    )
    assert (exported.code, exported.err) == (0, "")
    assert "ONNX at 64 px: objects on 2 images within" in exported.out
    told = {"bundle": "masks_bundle", "runtime": "onnx", "result_file": "masks_bundle.json"}
    ended = forked.run("validate.py", workspace, **told)
    assert (ended.code, ended.err) == (0, "") and "mask AP" in ended.out
    found = json.loads((workspace / "masks_bundle.json").read_text())
    scores = {key: facts[key] for key in facts if key.startswith(("box_", "mask_"))}
    assert len(scores) >= 20
    assert {key: found[key] for key in scores} == pytest.approx(scores, abs=0.05)


def test_the_report_tells_of_each_picture(workspace: Path, validated: Ended) -> None:
    report = workspace / "report"
    with (report / "pictures.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["objects"]) for row in rows] == [3, 0, 120, 3]
    assert all(int(row["found"]) + int(row["missed"]) == int(row["objects"]) for row in rows)
    names = {path.name for path in report.iterdir()}
    assert {"index.html", "report.json", "precision_recall.png", "worst.png"} <= names


def test_two_ranks_find_what_one_finds(workspace: Path) -> None:
    """While they train, and after: every picture once, whoever looks at it."""
    keys = {"batch_size": 2, "score_thr": 0.0, "epoch_size": 1}
    both = run("train.py", workspace, ranks=2, ckpt_save_dir="two", **keys)
    assert (both.code, both.err) == (0, "")
    (told,) = (row for row in records(workspace / "two") if row["kind"] == "val")
    alone = forked.run(
        "validate.py", workspace, ckpt_path="two/best.ckpt", result_file="alone.json", **keys
    )
    assert (alone.code, alone.err) == (0, "")
    facts = json.loads((workspace / "alone.json").read_text())
    found = {key: value for key, value in facts.items() if key.startswith("box_")}
    assert found == {key: told[key] for key in found} and found["box_AR100"] > 0


def test_a_picture_that_is_no_picture_is_one_line(workspace: Path) -> None:
    shutil.copytree(workspace / "coco", workspace / "spoilt")
    (workspace / "spoilt" / "train" / "105.png").write_bytes(b"no picture")
    keys = {"data_dir": "spoilt", "val_while_train": False, "ckpt_save_policy": None}
    ended = forked.run("train.py", workspace, ckpt_save_dir="stopped", **keys)
    assert ended.code == 1
    assert re.fullmatch(r"error: image [^\n]*105\.png is no[^\n]*\n", ended.err)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"num_classes": 3}, "num_classes: found 3 with 2 categories in coco/annotations/"),
        ({"train_split": "trian"}, "instances_trian.json"),
        ({"model": "poolformer_s12"}, "a classifier, with task detection, expected one of the "),
        ({"canvas": "[64, 48]"}, "canvas: found 64 x 48 for pictures of up to 64 x 64 pixels"),
        ({"warmup_steps": 4}, "warmup_steps: found 4 with a run of 4 steps, expected fewer"),
        ({"rpn_sampler_num": 64}, "rpn_sampler_num: found 64 with model retinanet_"),
        ({"model": MASK_RCNN, "amp_level": "auto"}, "amp_level: found auto with model mask_rcnn_"),
        ({"max_objects": 5}, "max_objects: found 5 with a picture of 120 objects"),
        ({"batch_size": 14}, "training set has 13 pictures, expected at least 14: batch_size 14"),
    ],
)
def test_a_mistake_is_one_line(workspace: Path, keys: dict[str, Any], said: str) -> None:
    ended = forked.run("train.py", workspace, ckpt_save_dir="never", **keys)
    assert ended.code == 1
    assert said in ended.err and ended.err.count("\n") == 1


@pytest.fixture(scope="module")
def on_a_canvas(workspace: Path) -> dict[str, Any]:
    """What validation finds op by op, all pictures padded to 64 x 64."""
    keys = {"ckpt_path": "whole/best.ckpt", "score_thr": 0.0, "val_canvas": True}
    ended = forked.run("validate.py", workspace, result_file="canvas.json", **keys)
    assert (ended.code, ended.err) == (0, "")
    return json.loads((workspace / "canvas.json").read_text())


LEFT_OUT = "other.json: objects left out: 1 of other categories\n"


def another(workspace: Path) -> str:
    """A file for validation with a category more."""
    source = workspace / "coco" / "annotations" / "instances_val.json"
    content = json.loads(source.read_text())
    content["categories"].append({"id": 9, "name": "post"})
    content["annotations"].append(annotation(999, 100, 9, 1, 1, 20, 20))
    return str(write(workspace / "other.json", content))


def test_training_tells_what_validation_leaves_out(workspace: Path) -> None:
    keys = {"epoch_size": 2, "epoch_steps": 1, "val_annotations": another(workspace)}
    ended = forked.run("train.py", workspace, ckpt_save_dir="other", **keys)
    assert (ended.code, ended.err) == (0, "") and LEFT_OUT in ended.out


def test_a_bundle_scores_as_its_checkpoint(workspace: Path, on_a_canvas: dict[str, Any]) -> None:
    """Padded to the same canvas, which is the bundle's size too."""
    keys = {"ckpt_path": "whole/best.ckpt", "score_thr": 0.0}
    exported = forked.run("export.py", workspace, export_dir="bundle", **keys)
    assert (exported.code, exported.err) == (0, "")
    assert "ONNX at 64 px: objects on 2 images within" in exported.out
    described = json.loads((workspace / "bundle" / "model.json").read_text())
    assert described["classes"] == ["disc", "bar"]
    settings = {"score_threshold": 0.0, "iou_threshold": 0.5, "detections": 100}
    assert described["objects"] == {"category_ids": [7, 2], **settings}
    assert {proof["samples"] for proof in described["verification"]} == {"val_split"}
    for runtime in ("onnx", "mindspore"):
        keys = {"bundle": "bundle", "runtime": runtime, "report": f"report_{runtime}"}
        ended = forked.run("validate.py", workspace, result_file="bundle.json", **keys)
        assert (ended.code, ended.err) == (0, "")
        assert "on 4 pictures of coco/annotations/instances_val.json, in " in ended.out
        facts = json.loads((workspace / "bundle.json").read_text())
        scores = {key: value for key, value in on_a_canvas.items() if key.startswith("box_")}
        assert len(scores) >= 10 and on_a_canvas["box_AR100"] > 0
        assert {key: facts[key] for key in scores} == pytest.approx(scores, abs=0.05)
        assert (workspace / f"report_{runtime}" / "results.bbox.json").exists()
    ended = forked.run(
        "validate.py", workspace, bundle="bundle", val_annotations=another(workspace)
    )
    assert LEFT_OUT in ended.out


def test_what_validation_cannot_do_is_one_line(workspace: Path) -> None:
    ended = forked.run("validate.py", workspace, ckpt_path="whole/best.ckpt", num_classes=3)
    assert "num_classes: found 3 for whole/best.ckpt, a network of 2 classes" in ended.err
    ended = forked.run("validate.py", workspace, bundle="whole", image_size=64)
    assert ended.err.startswith("error: image_size: found 64 with task detection, expected null")


def test_own_files_of_annotations(workspace: Path, on_a_canvas: dict[str, Any]) -> None:
    """As some tools export them: beside the pictures."""
    root = workspace / "own"
    for split in ("train", "val"):
        shutil.copytree(workspace / "coco" / split, root / split)
        source = workspace / "coco" / "annotations" / f"instances_{split}.json"
        shutil.copy(source, root / split / "_annotations.coco.json")
    ended = forked.run(
        "validate.py",
        workspace,
        data_dir="own",
        val_annotations="own/val/_annotations.coco.json",
        ckpt_path="whole/best.ckpt",
        score_thr=0.0,
        val_canvas=True,
        canvas=(64, 128),
        result_file="own.json",
    )
    assert (ended.code, ended.err) == (0, "")
    facts = json.loads((workspace / "own.json").read_text())
    assert facts["padding"] == "canvas" and facts["images"] == 4
    boxes = [key for key in facts if key.startswith("box_")]
    # The norms see more of what is padded.
    assert any(facts[key] != on_a_canvas[key] for key in boxes)
