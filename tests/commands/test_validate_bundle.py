"""validate.py --bundle: the exported files themselves, exactly, against PyNative image by image."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import forked
import mindspore as ms
import numpy as np
import pytest
from bundles import redescribe
from mindspore import Tensor
from official import load_official_weights
from PIL import Image
from scripts import RECIPE, Ended, Running, command, write_images
from small_network import SMALL, small
from toy_classifier import ToyClassifier

from mindcv_poolformer.config import DataConfig, Recipe
from mindcv_poolformer.data.preprocess import EvalTransform
from mindcv_poolformer.export.choices import Choices
from mindcv_poolformer.export.mindir import Trained, write_bundle
from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.tasks import validating_images

pytestmark = pytest.mark.long

CLASSES = tuple(f"class{label}" for label in (4, 0, 6, 2, 1, 3, 5, 7))  # class7 has no images
TOY_CLASSES = (*CLASSES, "class8", "class9")
TRANSFORM = EvalTransform(32, 0.8, "bicubic", (120.0, 115.0, 100.0), (60.0, 50.0, 55.0))
IMAGES = 21


def preprocess(path: Path) -> np.ndarray:
    """A 40 x 36 image: short side to 32 / 0.8 = 40 pixels, 44 x 40, centre of 32 x 32."""
    image = Image.open(path).resize((44, 40), Image.Resampling.BICUBIC).crop((6, 4, 38, 36))
    pixels = (np.asarray(image, np.float32) - [120, 115, 100]) / [60, 50, 55]
    return pixels.transpose(2, 0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, recipe, and bundles that take what they can: float32, pixels, fixed batches."""
    folder = tmp_path_factory.mktemp("validate_bundle")
    write_images(folder / "data" / "val", per_class=3, classes=7)
    (folder / "recipe.yaml").write_text(f"model: {SMALL}\n{RECIPE}")
    network = small(num_classes=len(CLASSES))
    load_official_weights(network)
    ms.save_checkpoint(network, str(folder / "net.ckpt"))
    trained = Trained(network, SMALL, folder / "net.ckpt", TRANSFORM, CLASSES)
    paths = sorted((folder / "data" / "val").glob("*/*.png"))[:3]
    samples = np.stack([preprocess(path) for path in paths])
    write_bundle(trained, folder / "plain", samples, Choices(beside="ONNX"))
    pixels = Choices(takes="uint8", gives="probabilities", batch_sizes=(2, 4), deploy=False)
    toy = Trained(toy_network(), "toy", folder / "net.ckpt", TRANSFORM, TOY_CLASSES)
    write_bundle(toy, folder / "pixels", samples, pixels)
    return folder


def toy_network() -> ToyClassifier:
    """Of a graph that compiles in no time, of which there is one for each batch size."""
    return load_official_weights(ToyClassifier()).set_train(False)


def images_of(folder: Path) -> tuple[np.ndarray, list[str]]:
    """What a network sees of each, (21, 3, 32, 32), and the names of their classes."""
    paths = sorted((folder / "data" / "val").glob("*/*.png"))
    return np.stack([preprocess(path) for path in paths]), [path.parent.name for path in paths]


def scores(logits: np.ndarray, labels: list[int]) -> dict[str, float]:
    """By their definitions."""
    logits, places = logits.astype(np.float64), np.array(labels)
    ranking = np.argsort(-logits, axis=1)
    chosen = np.exp(logits)[np.arange(IMAGES), places] / np.exp(logits).sum(axis=1)
    found = {
        "top1": 100 * float(np.mean(ranking[:, 0] == places)),
        "top5": 100 * float(np.mean((ranking[:, :5] == places[:, None]).any(axis=1))),
        "loss": float(-np.log(chosen).mean()),
    }
    assert 0 < found["top1"] < found["top5"] < 100  # else the tests below could not tell much
    return found


@pytest.fixture(scope="module")
def truth(workspace: Path) -> dict[str, float]:
    """Of the network in PyNative mode."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = small(num_classes=len(CLASSES))
    load_official_weights(network).set_train(False)
    images, names = images_of(workspace)
    return scores(network(Tensor(images)).asnumpy(), [CLASSES.index(name) for name in names])


def validate(folder: Path, **keys: Any) -> Ended:
    return forked.run("validate.py", folder, **keys)


def check(folder: Path, ended: Ended, truth: dict[str, float]) -> dict[str, Any]:
    assert (ended.code, ended.err) == (0, "")
    found = json.loads((folder / "report.json").read_text())
    assert found["images"] == IMAGES
    for score, value in truth.items():
        assert found[score] == pytest.approx(value, abs=1e-4), score
    return found


def test_the_mindir_is_measured(workspace: Path, truth: dict[str, float]) -> None:
    keys = {"bundle": "plain", "runtime": "mindspore", "result_file": "report.json"}
    ended = validate(workspace, batch_size=5, **keys)
    found = check(workspace, ended, truth)
    description = json.loads((workspace / "plain" / "model.json").read_text())
    checksum = description["files"]["model.mindir"]["sha256"]
    assert found["files"] == {"model.mindir": checksum}
    head, scores, file = ended.out.splitlines()
    assert head == f"plain/model.mindir on 21 images of data/val, in MindSpore {ms.__version__}"
    assert re.fullmatch(r"fp32: top-1 .* %, top-5 .* %, loss .* \(.* images/s\)", scores)
    assert file == "results: report.json"


def test_pixels_probabilities_and_batches_of_their_own(workspace: Path) -> None:
    ended = validate(workspace, bundle="pixels", batch_size=7, result_file="report.json")
    images, names = images_of(workspace)
    features = np.concatenate((images.mean((2, 3)), (images**2).mean((2, 3))), axis=1)
    head = toy_network().head
    logits = features @ head.weight.asnumpy().T + head.bias.asnumpy()
    truth = scores(logits, [TOY_CLASSES.index(name) for name in names])
    assert len(check(workspace, ended, truth)["files"]) == 2


def test_the_onnx_graph_is_measured(workspace: Path, truth: dict[str, float]) -> None:
    ended = validate(workspace, bundle="plain", result_file="report.json")
    found = check(workspace, ended, truth)
    assert set(found["files"]) == {"model.onnx"}
    assert found["runtime"].startswith("ONNX Runtime 1.")
    assert ended.out.startswith("plain/model.onnx on 21 images of data/val, in ONNX Runtime 1.")


def test_two_ranks_count_every_image_once(workspace: Path, truth: dict[str, float]) -> None:
    words = command("validate.py", 2, bundle="plain", batch_size=4, result_file="report.json")
    found = check(workspace, Running(workspace, words).finish(), truth)
    assert found["ranks"] == 2


def test_names_for_people_go_by_the_folders_order(workspace: Path, tmp_path: Path) -> None:
    for name in ("data", "recipe.yaml"):
        (tmp_path / name).symlink_to(workspace / name)
    subprocess.run(["cp", "-r", str(workspace / "plain"), str(tmp_path / "people")], check=True)

    def rename(description: dict[str, Any]) -> None:
        description["classes"] = [f"animal {index}" for index in range(8)]

    redescribe(tmp_path / "people", rename)
    ended = validate(tmp_path, bundle="people")
    assert (ended.code, ended.out) == (1, "")
    assert re.fullmatch(
        r"error: data/val: found the class class0 among 7, expected those of the bundle, or as "
        r"many in their order: 8\n",
        ended.err,
    )
    write_images(tmp_path / "eight" / "val", per_class=3, classes=8)
    ended = validate(tmp_path, bundle="people", data_dir="eight")
    assert ended.code == 0, ended.err
    assert ended.out.startswith("labels: no class folder has the name of an output (class0 is")


@pytest.mark.parametrize("names", [("cat",), ("cat", "dog", "crane")])
def test_order_tells_only_where_there_are_as_many_folders(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    write_images(tmp_path / "val", per_class=1, classes=2)
    recipe = Recipe(data=DataConfig(data_dir=str(tmp_path)))
    with pytest.raises(UserError, match=f"class0 among 2, .* in their order: {len(names)}"):
        validating_images.images_for(names, tmp_path, recipe)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"bundle": "nowhere"}, "bundle nowhere: found no such folder"),
        ({"bundle": "plain", "ckpt_path": "net.ckpt"}, "ckpt_path: found it with bundle"),
        ({"bundle": "plain", "deploy": True}, "deploy: found it with bundle"),
        ({"runtime": "onnx"}, "runtime: found it without bundle"),
        ({"bundle": "plain", "image_size": 64}, "image_size: found 64, expected"),
    ],
)
def test_a_mistake_is_one_line(workspace: Path, keys: dict[str, Any], said: str) -> None:
    ended = validate(workspace, **keys)
    assert (ended.code, ended.out) == (1, "")
    assert re.fullmatch(rf"error: {re.escape(said)}[^\n]*\n", ended.err)
