"""ONNX graphs, by ONNX's checker and ONNX Runtime themselves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from bundles import redescribe, sign
from mindspore import Tensor
from official import load_official_weights

from mindcv_poolformer.export.bundle import load_bundle
from mindcv_poolformer.export.choices import Choices
from mindcv_poolformer.export.golden import self_test
from mindcv_poolformer.export.mindir import Trained, write_bundle
from mindcv_poolformer.export.onnx.builder import Builder
from mindcv_poolformer.export.onnx.write import write_onnx
from mindcv_poolformer.models import PoolFormer
from mindcv_poolformer.models.deploy import to_deploy
from mindcv_poolformer.runtime.errors import UserError


def run(path: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images})
    return found


def test_the_graph_is_clean_and_gives_the_checkpoints_logits(
    onnx_folder: Path, inputs: np.ndarray, expected: np.ndarray
) -> None:
    path = onnx_folder / "model.onnx"
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path)
    assert [end.name for end in model.graph.input] == ["images"]
    assert [end.name for end in model.graph.output] == ["logits"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert {node.domain for node in model.graph.node} == {""}
    for count in (1, 3, 5):
        np.testing.assert_allclose(run(path, inputs[:count]), expected[:count], atol=1e-4)


def test_the_bundle_tells_of_both_and_both_were_proven(onnx_folder: Path) -> None:
    description = json.loads((onnx_folder / "model.json").read_text())
    assert description["graphs"]["model.onnx"] == {"batch_size": None, "image_size": 32}
    proofs = {proof["file_format"]: proof for proof in description["verification"]}
    assert set(proofs) == {"MINDIR", "ONNX"}
    assert 0 < proofs["ONNX"]["max_abs_difference"] <= 1e-4


def test_a_bundle_in_onnx_runtime(
    onnx_folder: Path, inputs: np.ndarray, expected: np.ndarray
) -> None:
    bundle = load_bundle(onnx_folder, runtime="onnx")
    np.testing.assert_allclose(bundle.logits(inputs, batch_size=2), expected, atol=1e-4)
    said = self_test(bundle)
    assert said.startswith("self test at 32 px: logits of 4 images, batch size 4, in ")
    assert f" in ONNX Runtime {onnxruntime.__version__}, within " in said


def test_pixels_in_and_probabilities_out_at_any_size(
    trained: Trained,
    tmp_path: Path,
    inputs: np.ndarray,
    expected: np.ndarray,
    pynative_mode: None,
) -> None:
    path = tmp_path / "pixels.onnx"
    deployed = to_deploy(trained.network)
    write_onnx(deployed, path, trained.transform, takes="uint8", gives="probabilities")
    mean, std = np.float32([120, 115, 100]), np.float32([60, 50, 55])
    pixels = np.rint(inputs.transpose(0, 2, 3, 1) * std + mean).astype(np.uint8)
    softmax = np.exp(expected) / np.exp(expected).sum(1, keepdims=True)
    np.testing.assert_allclose(run(path, pixels), softmax, atol=1e-5)
    larger = np.random.default_rng(2).integers(0, 256, (2, 64, 48, 3), np.uint8)
    normalised = ((larger - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    logits = trained.network(Tensor(np.ascontiguousarray(normalised))).asnumpy()
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(run(path, larger), softmax, atol=1e-5)


def test_timms_head(tmp_path: Path, trained: Trained, pynative_mode: None) -> None:
    images = np.random.default_rng(3).normal(size=(2, 3, 96, 96)).astype(np.float32)
    network = PoolFormer((1, 2, 1, 1), (8, 16, 24, 32), num_classes=10, head="pool_norm")
    load_official_weights(network).set_train(False)
    write_onnx(to_deploy(network), tmp_path / "timm.onnx", trained.transform)
    logits = network(Tensor(images)).asnumpy()
    np.testing.assert_allclose(run(tmp_path / "timm.onnx", images), logits, atol=1e-4)
    assert np.abs(logits - trained.network(Tensor(images)).asnumpy()).max() > 1e-2


def test_half_weights_and_a_fixed_batch(
    trained: Trained, tmp_path: Path, onnx_folder: Path, inputs: np.ndarray, expected: np.ndarray
) -> None:
    path = tmp_path / "half.onnx"
    write_onnx(to_deploy(trained.network), path, trained.transform, batch_size=5, half=True)
    assert path.stat().st_size < 0.55 * (onnx_folder / "model.onnx").stat().st_size
    difference = np.abs(run(path, inputs) - expected).max()
    assert 1e-6 < difference < 0.02 * np.ptp(expected)
    with pytest.raises(Exception, match="Got invalid dimensions"):
        run(path, inputs[:4])


def other_classes(folder: Path) -> None:
    def change(description: dict[str, Any]) -> None:
        description["classes"].append("one more")
        description["output"]["shape"][1] = 11

    redescribe(folder, change)


def no_graph(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"no graph")
    sign(folder, "model.onnx")


def cut(folder: Path) -> None:
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (other_classes, r"model.onnx: found a graph of .* as model.json tells"),
        (no_graph, "model.onnx: found no graph that ONNX Runtime .* can load"),
        (cut, "model.onnx: found .* bytes, expected .*: cut off or replaced"),
        (lambda folder: (folder / "model.onnx").unlink(), "model.onnx: found no such file"),
    ],
)
def test_a_damaged_graph(
    onnx_folder: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    shutil.copytree(onnx_folder, tmp_path / "bundle")
    damage(tmp_path / "bundle")
    with pytest.raises(UserError, match=message) as caught:
        load_bundle(tmp_path / "bundle", runtime="onnx")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("half", [False, True])
def test_equal_weights_of_one_shape_are_written_once(half: bool) -> None:
    graph = Builder(half)
    wide, high = np.zeros((2, 3)), np.zeros((3, 2))
    names = [graph.constant(values) for values in (wide, high, wide, wide + 1, wide[0])]
    assert names[0] == names[2] and len(set(names)) == 4
    assert [tuple(weight.dims) for weight in graph.weights] == [(2, 3), (3, 2), (2, 3), (3,)]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (Choices(beside="ONNX", deploy=False), "deploy: found false with file_format ONNX"),
        (Choices(beside="ONNX", key_file="key"), "enc_key_file: found one with file_format ONNX"),
    ],
)
def test_choices_that_exclude_each_other(
    trained: Trained,
    tmp_path: Path,
    inputs: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    choices: Choices,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("key").write_bytes(bytes(16))
    with pytest.raises(UserError, match=message):
        write_bundle(trained, tmp_path / "bundle", inputs, choices)
    assert not (tmp_path / "bundle").exists()
