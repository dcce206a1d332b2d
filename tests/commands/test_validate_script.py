"""validate.py as a user runs it: exact on any batch size and number of ranks, clear on mistakes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forked
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from official import load_official_weights
from PIL import Image
from scripts import RECIPE, Ended, run, write_images
from small_network import SMALL, small

CLASSES = [f"class{label}" for label in (4, 0, 6, 2, 1, 3, 5, 7)]  # class7 has no images
IMAGES = 21


@dataclass(frozen=True)
class Truth:
    """What a validation of all images must find."""

    top1: float
    top5: float
    loss: float


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, recipe and `net.ckpt`, whose classes stand in an order of their own."""
    folder = tmp_path_factory.mktemp("validate")
    write_images(folder / "data" / "val", per_class=3, classes=7)
    (folder / "recipe.yaml").write_text(f"model: {SMALL}\n{RECIPE}")
    network = small(num_classes=len(CLASSES))
    load_official_weights(network)
    facts = {"model": SMALL, "num_classes": len(CLASSES), "classes": CLASSES}
    path = str(folder / "net.ckpt")
    ms.save_checkpoint(network, path, append_dict={"metadata": json.dumps(facts)})
    return folder


@pytest.fixture(scope="module")
def truth(workspace: Path) -> Truth:
    """Image by image in PyNative mode, preprocessing and scores spelt out."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = small(num_classes=len(CLASSES))
    load_official_weights(network).set_train(False)
    paths = sorted((workspace / "data" / "val").glob("*/*.png"))
    logits = network(Tensor(np.stack([preprocess(path) for path in paths]))).asnumpy()
    logits = logits.astype(np.float64)
    labels = np.array([CLASSES.index(path.parent.name) for path in paths])
    ranking = np.argsort(-logits, axis=1)
    odds = np.exp(logits)
    chosen = odds[np.arange(IMAGES), labels] / odds.sum(axis=1)
    found = Truth(
        top1=100 * float(np.mean(ranking[:, 0] == labels)),
        top5=100 * float(np.mean((ranking[:, :5] == labels[:, None]).any(axis=1))),
        loss=float(-np.log(chosen).mean()),
    )
    assert 0 < found.top1 < found.top5 < 100  # else the tests below could not tell much
    return found


def preprocess(path: Path) -> np.ndarray:
    """A 40 x 36 image: short side to 32 / 0.8 = 40 pixels, 44 x 40, centre of 32 x 32."""
    image = Image.open(path).resize((44, 40), Image.Resampling.BICUBIC).crop((6, 4, 38, 36))
    pixels = (np.asarray(image) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return pixels.transpose(2, 0, 1).astype(np.float32)


def validate(folder: Path, ranks: int = 1, **keys: Any) -> Ended:
    keys = {"ckpt_path": "net.ckpt", "crop_pct": 0.8, "val_interpolation": "bicubic"} | keys
    if ranks == 1:
        return forked.run("validate.py", folder, **keys)
    return run("validate.py", folder, ranks, **keys)


def report(folder: Path, name: str, ended: Ended) -> dict[str, Any]:
    assert (ended.code, ended.err) == (0, "")
    return json.loads((folder / name).read_text())


def assert_true(found: dict[str, Any], truth: Truth) -> None:
    assert found["images"] == IMAGES
    assert found["top1"] == pytest.approx(truth.top1, abs=1e-9)
    assert found["top5"] == pytest.approx(truth.top5, abs=1e-9)
    assert found["loss"] == pytest.approx(truth.loss, abs=2e-5)
    assert found["images_per_second"] > 0


def test_it_reports_the_truth_and_compares_o3(workspace: Path, truth: Truth) -> None:
    ended = validate(
        workspace,
        batch_size=5,
        val_amp_level="O3",
        compare_amp_level="O0",
        result_file="reports/o3.json",
    )
    found = report(workspace, "reports/o3.json", ended)
    assert found["amp_level"] == "O3"
    assert found["compared"]["amp_level"] == "O0"
    assert_true(found["compared"], truth)
    assert found["loss"] == pytest.approx(truth.loss, abs=0.05)
    assert found["loss"] != found["compared"]["loss"]
    assert found["agreement"] > 90
    assert (found["model"], found["ranks"]) == (SMALL, 1)
    assert (found["checkpoint"], found["data"]) == ("net.ckpt", "data/val")

    head, o3, o0, agreement, file = ended.out.splitlines()
    assert head == "net.ckpt on 21 images of data/val"
    assert re.fullmatch(r"  O3: top-1 .* %, top-5 .* %, loss .* \(.* images/s\)", o3)
    assert f"  O0: top-1 {truth.top1:.2f} %, top-5 {truth.top5:.2f} %" in o0
    assert agreement.startswith("O3 and O0 ") and f"{found['agreement']:.2f} %" in agreement
    assert file == "results: reports/o3.json"


def test_the_deploy_form_finds_the_same(workspace: Path, truth: Truth) -> None:
    keys = {"mode": 1, "deploy": True, "compare_amp_level": "O0"}
    ended = validate(workspace, **keys, result_file="deploy.json")
    found = report(workspace, "deploy.json", ended)
    assert (found["form"], found["agreement"]) == ("deploy", 100)
    assert_true(found, truth)
    assert found["loss"] != found["compared"]["loss"]  # other arithmetic
    assert ended.out.startswith("net.ckpt on 21 images of data/val, deploy form\n")


@pytest.mark.parametrize("batch_size", [1, 21, 64])
def test_the_batch_size_changes_nothing(workspace: Path, truth: Truth, batch_size: int) -> None:
    ended = validate(workspace, mode=1, batch_size=batch_size, result_file="batch.json")
    assert_true(report(workspace, "batch.json", ended), truth)


@pytest.mark.long
def test_two_ranks_count_every_image_once(workspace: Path, truth: Truth) -> None:
    """One has an image, and so a batch, more than the other."""
    keys = {"mode": 1, "batch_size": 2, "compare_amp_level": "O3"}
    ended = validate(workspace, ranks=2, **keys, result_file="two.json")
    found = report(workspace, "two.json", ended)
    assert_true(found, truth)
    assert found["ranks"] == 2 and found["agreement"] > 90
    assert ended.out.count("net.ckpt on 21 images") == 1


@pytest.mark.long
def test_a_rank_without_work_changes_nothing(workspace: Path) -> None:
    write_images(workspace / "data" / "one-image", per_class=1, classes=1)
    keys = {"mode": 1, "val_split": "one-image", "batch_size": 4}
    ended = validate(workspace, **keys, result_file="alone.json")
    alone = report(workspace, "alone.json", ended)
    ended = validate(workspace, 2, **keys, compare_amp_level="O0", result_file="shared.json")
    shared = report(workspace, "shared.json", ended)
    assert (alone["images"], alone["ranks"]) == (1, 1)
    assert (shared["images"], shared["ranks"]) == (1, 2)
    for score in ("top1", "top5"):
        assert shared[score] == alone[score]
    assert shared["loss"] == pytest.approx(alone["loss"], abs=1e-6)
    assert shared["images_per_second"] > 0
    assert shared["agreement"] == 100.0  # of a level with itself


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"ckpt_path": "mistyped.ckpt"}, "mistyped.ckpt"),
        pytest.param({"ckpt_path": "recipe.yaml"}, "recipe.yaml", marks=pytest.mark.long),
        ({"model": "poolformer_s24"}, f"expected its {SMALL}"),
        pytest.param({"val_split": "nothing"}, "data/nothing", marks=pytest.mark.long),
        pytest.param({"ckpt_path": "cut.ckpt"}, "cut.ckpt", marks=pytest.mark.long),
        pytest.param({"ckpt_path": ""}, "run/best.ckpt", marks=pytest.mark.long),
        pytest.param({"model": "poolformer_s13"}, "poolformer_s13", marks=pytest.mark.long),
        pytest.param({"num_classes": 3}, "head.weight", marks=pytest.mark.long),
        pytest.param({"val_split": "damaged"}, "damaged/class0/00.png", marks=pytest.mark.long),
        pytest.param(
            {"val_split": "damaged", "on_corrupt": "skip"},
            "damaged/class0/00.png",
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_mistake_is_one_line(workspace: Path, keys: dict[str, Any], said: str) -> None:
    (workspace / "cut.ckpt").write_bytes((workspace / "net.ckpt").read_bytes()[:10_000])
    if not (workspace / "data" / "damaged").exists():
        write_images(workspace / "data" / "damaged", per_class=1, classes=2)
        (workspace / "data" / "damaged" / "class0" / "00.png").write_bytes(b"no image")
    ended = validate(workspace, **keys)
    assert (ended.code, ended.out) == (1, "")
    assert re.fullmatch(rf"error: [^\n]*{re.escape(said)}[^\n]*\n", ended.err)
