"""The scripts with other people's weights, from a file and from a server on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import forked
import numpy as np
import pytest
import scripts
from official import load_official_weights
from scripts import Ended, write_workspace
from server import Server, serving
from small_network import SMALL, small

from mindcv_poolformer import classify
from mindcv_poolformer.runtime.checkpoint_file import read_checkpoint
from mindcv_poolformer.weights import ModelWeights, read_weights, write_weights
from mindcv_poolformer.weights.read import Source
from mindcv_poolformer.weights.recognise import recognise

pytestmark = pytest.mark.usefixtures("small_is_known")

FOLDERS = ("class0", "class1", "class2")
LABELS = ("tench, Tinca tinca", "goldfish, Carassius auratus", "great white shark")
HUB = "/sail/poolformer_s12/resolve/main"
# One epoch of one step that leaves the weights as they were, but for the last bits.
STILL = {
    "mode": 1,
    "epoch_size": 1,
    "batch_size": 24,
    "warmup_epochs": 0,
    "lr": 1e-12,
    "min_lr": 0.0,
    "ckpt_save_policy": None,
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """It stands for the hub; the cache is empty."""
    with serving() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("MINDCV_POOLFORMER_CACHE", str(tmp_path / "cache"))
        yield running


@pytest.fixture
def three() -> ModelWeights:
    """Weights for three classes, with a head that is not the one a new network gets."""
    network = load_official_weights(small(num_classes=3))
    values = {p.name: p.asnumpy() for p in network.get_parameters()}
    values["head.weight"] = np.random.default_rng(1).normal(size=(3, 32)).astype(np.float32)
    return recognise(Source(Path("x.ckpt"), values, {"model": SMALL}))


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return write_workspace(tmp_path / "work", per_class=8)


def served(server: Server, folder: Path, weights: ModelWeights) -> None:
    """Publish weights as the authors' are."""
    write_weights(weights, folder, "hf")
    server.files |= {f"{HUB}/{file.name}": file.read_bytes() for file in folder.iterdir()}


def last_weights(folder: Path, ended: Ended) -> dict[str, np.ndarray]:
    assert (ended.code, ended.err) == (0, "")
    return scripts.weights(folder / "run" / "last.ckpt")


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("folders", [FOLDERS, ("0", "1", "2")])
def test_only_the_same_classes_keep_their_head(
    workspace: Path, three: ModelWeights, folders: tuple[str, ...]
) -> None:
    write_weights(replace(three, classes=folders), workspace / "start.ckpt", "ckpt")
    ended = forked.run("train.py", workspace, ckpt_path="start.ckpt", **STILL)
    last = last_weights(workspace, ended)
    told = "; the head is new and untrained, for 3 classes: class 0 is 0 in the weights, class0 in"
    assert (told in ended.out) == (folders != FOLDERS)
    distance = np.abs(last["head.weight"] - three.values["head.weight"]).max()
    assert distance < 1e-6 if folders == FOLDERS else distance > 0.1
    assert_close(last["network.4.0.mlp.fc2.weight"], three.values["network.4.0.mlp.fc2.weight"])
    assert read_checkpoint(workspace / "run" / "last.ckpt").metadata["classes"] == list(FOLDERS)


@pytest.mark.long
def test_names_for_people_are_no_folders(
    workspace: Path, server: Server, three: ModelWeights, tmp_path: Path, pynative_mode: None
) -> None:
    write_weights(replace(three, classes=LABELS), tmp_path / "hf", "hf")
    write_weights(read_weights(tmp_path / "hf"), tmp_path / "x.ckpt", "ckpt")
    server.files["/w/x.ckpt"] = (tmp_path / "x.ckpt").read_bytes()
    keys = {"mode": 1, "ckpt_path": f"{server.url}/w/x.ckpt", "result_file": "result.json"}
    ended = forked.run("validate.py", workspace, **keys)
    assert (ended.code, ended.err) == (0, "")
    report = json.loads((workspace / "result.json").read_text())
    assert (report["images"], report["checkpoint"]) == (21, ended.out.partition(" on ")[0])
    image = workspace / "data" / "val" / "class0" / "00.png"
    for model in (tmp_path / "hf", tmp_path / "x.ckpt"):
        assert {label for label, _ in classify(image, model)} == set(LABELS)


@pytest.mark.long
def test_names_for_people_keep_the_head(workspace: Path, three: ModelWeights) -> None:
    labelled = replace(three, classes=LABELS, for_people=True)
    write_weights(labelled, workspace / "start.ckpt", "ckpt")
    ended = forked.run("train.py", workspace, ckpt_path="start.ckpt", **STILL)
    assert_close(last_weights(workspace, ended)["head.weight"], three.values["head.weight"])
    assert "3 classes, 3 input channels, head norm_pool\n" in ended.out


@pytest.mark.long
def test_two_ranks_download_once(server: Server, official_file: Path, tmp_path: Path) -> None:
    workspace = write_workspace(tmp_path / "work", per_class=8, model="poolformer_s12")
    served(server, tmp_path / "hub", read_weights(official_file))
    server.pauses[f"{HUB}/config.json"] = 5  # both ranks want it by then
    keys = STILL | {"batch_size": 12}
    ended = scripts.run("train.py", workspace, ranks=2, pretrained=True, **keys)
    last = last_weights(workspace, ended)
    expected = read_weights(official_file).values
    assert_close(last["network.6.1.mlp.fc2.weight"], expected["network.6.1.mlp.fc2.weight"])
    assert last["head.weight"].shape == (3, 512)
    assert ended.out.count("the head is new and untrained, for 3 classes") == 1
    files = ["config.json", "model.safetensors"]
    sent = [Path(path).name for method, path, _ in server.requests if method == "GET"]
    assert sent == files
    there = {file.name for file in (tmp_path / "cache").rglob("*") if file.is_file()}
    assert {name for name in there if not name.endswith(".lock")} == set(files)

    nowhere = scripts.run("train.py", workspace, ranks=2, ckpt_path=f"{server.url}/w/nope.ckpt")
    assert (nowhere.code, nowhere.out) == (1, "")
    errors = [line for line in nowhere.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "found status 404, expected a file; by hand: curl" in errors[0]
