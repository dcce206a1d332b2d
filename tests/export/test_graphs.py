"""Graphs that normalise, give probabilities, and come in several image and batch sizes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor, nn
from overwriting import overwriting
from PIL import Image
from toy_classifier import ToyClassifier

from mindcv_poolformer.data.preprocess import open_image
from mindcv_poolformer.export.bundle import load_bundle
from mindcv_poolformer.export.choices import Choices
from mindcv_poolformer.export.golden import self_test
from mindcv_poolformer.export.mindir import Trained, write_bundle
from mindcv_poolformer.runtime.errors import UserError


@pytest.fixture(scope="session")
def pixels(pictures: list[Path]) -> np.ndarray:
    """The pictures' crops, (5, 32, 32, 3) uint8."""
    return np.stack([np.asarray(Image.open(path))[4:36, 9:41] for path in pictures])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_pixels_in_and_probabilities_out(
    toy: Trained,
    tmp_path: Path,
    inputs: np.ndarray,
    pixels: np.ndarray,
    toy_logits: np.ndarray,
    pictures: list[Path],
    precision: str,
) -> None:
    choices = Choices(precision=precision, deploy=False, takes="uint8", gives="probabilities")
    description = write_bundle(toy, tmp_path / "bundle", inputs, choices)
    assert description["input"]["shape"] == [None, 32, 32, 3]
    assert description["input"]["layout"] == "NHWC"
    settings = json.loads((tmp_path / "bundle" / "model-settings.json").read_text())
    assert settings["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}]
    assert settings["outputs"][0]["name"] == "probabilities"
    text = (tmp_path / "bundle" / "README.md").read_text()
    assert "| images | uint8, NHWC, pixels 0 to 255 | N x 32 x 32 x 3 |" in text
    bundle = load_bundle(tmp_path / "bundle")
    softmax = np.exp(toy_logits) / np.exp(toy_logits).sum(1, keepdims=True)
    close = 1e-5 if precision == "fp32" else 0.02
    np.testing.assert_allclose(bundle.network(pixels), softmax, atol=close)
    np.testing.assert_allclose(bundle.outputs(pixels, 2), softmax, atol=close)
    images = [open_image(path) for path in pictures]
    np.testing.assert_array_equal(bundle.prepare(images), pixels)
    np.testing.assert_allclose(bundle.classify(images), softmax, atol=close)
    logits = bundle.logits(pixels)
    centred = toy_logits - np.log(np.exp(toy_logits).sum(1, keepdims=True))
    np.testing.assert_allclose(logits, centred, atol=1e-4 if precision == "fp32" else 0.1)
    assert self_test(bundle).startswith("self test at 32 px: log-probabilities of 4 images")
    if precision == "fp32":  # a difference of 2e-4 in a probability of 0.1
        wrong = dataclasses.replace(bundle, network=lambda x: bundle.network(x) * 0.999 + 1e-4)
        with pytest.raises(UserError, match="found log-probabilities up to .* off"):
            self_test(wrong)
    with pytest.raises(ValueError, match=r"found float32 \(5, 3, 32, 32\), expected uint8 \(N, 32"):
        bundle.outputs(inputs)
    with pytest.raises(ValueError, match="found float32 .*, expected uint8"):
        bundle.outputs(pixels.astype(np.float32))


@pytest.mark.long
def test_several_image_sizes(
    toy: Trained, tmp_path: Path, inputs: np.ndarray, toy_logits: np.ndarray
) -> None:
    mean, std = np.float32([120, 115, 100]), np.float32([60, 50, 55])
    noise = np.random.default_rng(4).integers(0, 256, (2, 64, 64, 3), np.uint8)
    larger = np.ascontiguousarray(((noise - mean) / std).transpose(0, 3, 1, 2))
    logits = toy.network(Tensor(larger)).asnumpy()
    choices = Choices(deploy=False)
    description = write_bundle(toy, tmp_path / "bundle", inputs, choices, further=[larger])
    assert set(description["graphs"]) == {"model.mindir", "model_64px.mindir"}
    assert [proof["image_size"] for proof in description["verification"]] == [32, 64]
    small, large = (load_bundle(tmp_path / "bundle", image_size=size) for size in (None, 64))
    np.testing.assert_allclose(small.logits(inputs), toy_logits, atol=1e-4)
    np.testing.assert_allclose(large.logits(larger), logits, atol=1e-4)
    assert large.transform(Image.new("RGB", (99, 77))).shape == (3, 64, 64)
    assert self_test(large).startswith("self test at 64 px: logits of 2 images")
    with pytest.raises(
        UserError, match="image_size: found 48, expected one of the bundle's: 32, 64"
    ):
        load_bundle(tmp_path / "bundle", image_size=48)
    assert "or with `--image_size` 64, each" in (tmp_path / "bundle" / "README.md").read_text()


def test_golden_answers_stay_when_others_follow(
    toy: Trained,
    tmp_path: Path,
    inputs: np.ndarray,
    toy_logits: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ToyClassifier, "__call__", overwriting(nn.Cell.__call__))
    choices = Choices(deploy=False)
    further = [np.tile(inputs[::-1], (1, 1, 2, 2))]
    write_bundle(toy, tmp_path / "bundle", inputs, choices, further=further)
    with np.load(tmp_path / "bundle" / "golden.npz") as golden:
        np.testing.assert_allclose(golden["logits"], toy_logits[:4], atol=1e-4)


@pytest.mark.long
def test_several_batch_sizes(
    toy: Trained, tmp_path: Path, inputs: np.ndarray, toy_logits: np.ndarray
) -> None:
    choices = Choices(deploy=False, batch_sizes=(1, 3))
    description = write_bundle(toy, tmp_path / "bundle", inputs, choices)
    settings = json.loads((tmp_path / "bundle" / "model-settings.json").read_text())
    assert settings["max_batch_size"] == 3
    assert "Batch sizes: 1, 3." in (tmp_path / "bundle" / "README.md").read_text()
    assert description["graphs"] == {
        "model.mindir": {"batch_size": 1, "image_size": 32},
        "model_32px_b3.mindir": {"batch_size": 3, "image_size": 32},
    }
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.batch_sizes == (1, 3)
    many = np.concatenate([inputs, inputs])
    twice = np.concatenate([toy_logits, toy_logits])
    for count in (1, 2, 3, 4, 8):
        np.testing.assert_allclose(bundle.logits(many[:count]), twice[:count], atol=1e-4)
    runs = {count: [size for _, size in bundle._runs(count, None)] for count in (1, 2, 3, 4, 8)}
    assert runs == {1: [1], 2: [3], 3: [3], 4: [3, 1], 8: [3, 3, 3]}
    assert self_test(bundle).count("batch size 1, 3,") == 1


def test_an_older_bundle(folder: Path, tmp_path: Path) -> None:
    """A bundle as version 1 of the description told it: one graph, no golden pair."""
    description = json.loads((folder / "model.json").read_text()) | {"format": 1}
    for key in ("graphs", "golden", "encryption"):
        del description[key]
    del description["input"]["dtype"], description["output"]["name"]
    (tmp_path / "model.json").write_text(json.dumps(description))
    (tmp_path / "model.mindir").write_bytes((folder / "model.mindir").read_bytes())
    bundle = load_bundle(tmp_path)
    assert (bundle.takes, bundle.gives, bundle.batch_sizes) == ("float32", "logits", ())
    with pytest.raises(UserError, match="found no golden pair for 32 px"):
        self_test(bundle)
