from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import stat
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops
from mindspore.train.mind_ir_pb2 import ModelProto

from mindcv_poolformer.export import golden
from mindcv_poolformer.export.bundle import load_bundle
from mindcv_poolformer.export.choices import Choices
from mindcv_poolformer.export.mindir import Trained, write_bundle
from mindcv_poolformer.runtime.errors import UserError

FILES = {"model.json", "model.mindir", "golden.npz", "model-settings.json", "README.md"}


PLAIN = Choices(deploy=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_description_says_what_was_written(folder: Path, checkpoint: Path) -> None:
    description = json.loads((folder / "model.json").read_text())
    graph = (folder / "model.mindir").read_bytes()
    assert description["model"] == "poolformer_tiny"
    trained = ms.load_checkpoint(str(checkpoint))
    assert description["parameters"] == sum(v.size for k, v in trained.items() if k != "metadata")
    assert description["input"] == {
        "name": "images",
        "shape": [None, 3, 32, 32],
        "layout": "NCHW",
        "dtype": "float32",
    }
    assert description["output"] == {"name": "logits", "shape": [None, 10], "dtype": "float32"}
    assert description["preprocessing"]["mean"] == [120.0, 115.0, 100.0]
    assert description["classes"][2] == "class c"
    assert description["checkpoint"] == {
        "name": "best.ckpt",
        "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
    }
    assert set(description["files"]) == {"model.mindir", "golden.npz"}
    assert description["files"]["model.mindir"] == {
        "sha256": hashlib.sha256(graph).hexdigest(),
        "size": len(graph),
    }
    assert description["graphs"] == {"model.mindir": {"batch_size": None, "image_size": 32}}
    assert description["golden"] == {"32": "golden.npz"}
    assert description["mindspore"] == ms.__version__
    (proof,) = description["verification"]
    assert (proof["file_format"], proof["image_size"], proof["images"]) == ("MINDIR", 32, 5)
    assert proof["max_abs_difference"] <= 1e-4
    assert proof["top1_agreement"] == 1.0


def test_graph_has_named_ends_and_a_dynamic_batch(folder: Path) -> None:
    model = ModelProto()
    model.ParseFromString((folder / "model.mindir").read_bytes())
    assert [end.name for end in model.graph.input] == ["images"]
    assert list(model.graph.input[0].tensor[0].dims) == [-1, 3, 32, 32]
    assert [end.name for end in model.graph.output] == ["logits"]


def test_whoever_reads_the_description_reads_the_graph(folder: Path) -> None:
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert len(modes) == 1


@pytest.mark.long
@pytest.mark.layout
@pytest.mark.usefixtures("pynative_mode")
def test_fp16_halves_the_file_and_keeps_the_logits_close(
    trained: Trained, tmp_path: Path, folder: Path, inputs: np.ndarray, expected: np.ndarray
) -> None:
    description = write_bundle(trained, tmp_path / "half", inputs, Choices(precision="fp16"))
    half = (tmp_path / "half" / "model.mindir").stat().st_size
    assert half < 0.55 * (folder / "model.mindir").stat().st_size
    assert (
        description["parameters"] == json.loads((folder / "model.json").read_text())["parameters"]
    )
    bundle = load_bundle(tmp_path / "half")
    assert bundle.network(inputs).dtype == np.float32
    difference = np.abs(bundle.logits(inputs) - expected).max()
    assert 1e-5 < difference < 0.02 * np.ptp(expected)
    (proof,) = description["verification"]
    assert proof["tolerance"] == pytest.approx(0.02 * np.ptp(expected), 1e-3)
    assert proof["max_abs_difference"] == pytest.approx(difference, rel=0.05)


@pytest.mark.layout
def test_fixed_batch_size(
    toy: Trained, tmp_path: Path, inputs: np.ndarray, toy_logits: np.ndarray
) -> None:
    choices = Choices(deploy=False, batch_sizes=(4,))
    description = write_bundle(toy, tmp_path / "fixed", inputs, choices)
    assert description["input"]["shape"] == [4, 3, 32, 32]
    bundle = load_bundle(tmp_path / "fixed")
    assert bundle.batch_sizes == (4,)
    for count in (1, 4, 5):
        logits = bundle.logits(inputs[:count], batch_size=2)
        np.testing.assert_allclose(logits, toy_logits[:count], atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("deploy", [True, False])
@pytest.mark.usefixtures("pynative_mode")
def test_the_layout_of_other_devices_gives_the_logits(
    trained: Trained,
    tmp_path: Path,
    folder: Path,
    inputs: np.ndarray,
    expected: np.ndarray,
    deploy: bool,
) -> None:
    write_bundle(trained, tmp_path / "NCHW", inputs, Choices(layout="NCHW", deploy=deploy))
    logits = load_bundle(tmp_path / "NCHW").logits(inputs)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
    own = {"Conv2D", "AvgPool"}
    assert own <= primitives(tmp_path / "NCHW")
    assert not own & primitives(folder)


class Turned(nn.Cell):
    """A convolution, and a linear layer of its maps as a MetaFormer has them on every device."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 4, 4)
        self.head = nn.Dense(16, 10)

    def construct(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.head(ops.relu(y.transpose(0, 2, 3, 1)).mean((1, 2)))


def test_the_cpus_kernels_do_not_prove_ascends_graph(
    toy: Trained, tmp_path: Path, inputs: np.ndarray, graph_kernels: None
) -> None:
    """They mix float16 up where the last axis moves, which the other layout does at each turn."""
    trained = dataclasses.replace(toy, network=Turned().set_train(False))
    choices = Choices(layout="NCHW", precision="fp16", deploy=False)
    (proof,) = write_bundle(trained, tmp_path / "bundle", inputs, choices)["verification"]
    assert proof["top1_agreement"] == 1


@pytest.mark.long
def test_existing_target_needs_overwrite(toy: Trained, tmp_path: Path, inputs: np.ndarray) -> None:
    """Under a path with blanks and an accent."""
    target = tmp_path / "modèle n° 1" / "my bundle"
    write_bundle(toy, target, inputs, PLAIN)
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"my bundle exists.*--overwrite"):
        write_bundle(toy, target, inputs[:2], PLAIN)
    assert contents(tmp_path) == before
    write_bundle(toy, target, inputs[:2], PLAIN, overwrite=True)
    assert {path.name for path in target.iterdir()} == FILES
    assert json.loads((target / "model.json").read_text())["verification"][0]["images"] == 2
    assert load_bundle(target).model == "toy"


def test_overwrite_spares_what_is_no_bundle(
    toy: Trained, tmp_path: Path, inputs: np.ndarray
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="something else than a bundle"):
        write_bundle(toy, tmp_path / "home", inputs, PLAIN, overwrite=True)
    assert contents(tmp_path) == {"home/thesis.txt": b"years of work"}


@pytest.mark.parametrize("older", [False, True])
def test_failed_proof_leaves_everything_as_it_was(
    toy: Trained, tmp_path: Path, inputs: np.ndarray, folder: Path, older: bool
) -> None:
    if older:
        shutil.copytree(folder, tmp_path / "bundle")
    before = contents(tmp_path)
    weight = toy.network.head.weight  # beyond fp16's 65504, well within fp32
    weight.set_data(Tensor(np.full(weight.shape, 1e6, np.float32)))
    with pytest.raises(
        UserError,
        match=r"export: found logits of the MINDIR .* off the checkpoint's on 5 images of 32 px",
    ):
        choices = Choices(precision="fp16", deploy=False)
        write_bundle(toy, tmp_path / "bundle", inputs, choices, overwrite=True)
    assert contents(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == ({"bundle"} if older else set())


def test_pynative_mode_exports_the_same_graph(onnx_folder: Path, folder: Path) -> None:
    assert operators(onnx_folder) == operators(folder)


def primitives(bundle: Path) -> set[str]:
    return {name.rpartition("::")[2] for name in operators(bundle)}


def operators(bundle: Path) -> list[str]:
    model = ModelProto()
    model.ParseFromString((bundle / "model.mindir").read_bytes())
    return [node.op_type.rpartition(":")[0] for node in model.graph.node]


def test_fp32_is_proven_too(
    toy: Trained, tmp_path: Path, inputs: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golden, "FP32_TOLERANCE", -1.0)
    with pytest.raises(UserError, match="expected at most -1; nothing is kept"):
        write_bundle(toy, tmp_path / "bundle", inputs, PLAIN)
    assert list(tmp_path.iterdir()) == []
