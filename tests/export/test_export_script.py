"""export.py in this process; tests/commands/test_predict_cli.py runs it as a user does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from checkpoints import CLASSES, logits_of, write_checkpoint
from mindspore import Tensor, nn
from official import load_official_weights
from small_network import forget

import export
from mindcv_poolformer.data.photographs import photograph_crops
from mindcv_poolformer.data.preprocess import open_image
from mindcv_poolformer.export import choices, classifiers, mindir
from mindcv_poolformer.export.bundle import load_bundle
from mindcv_poolformer.export.int8 import Int8Images
from mindcv_poolformer.export.mindir import Trained
from mindcv_poolformer.export.onnx import write
from mindcv_poolformer.models import PoolFormer, registry
from mindcv_poolformer.models.deploy import to_deploy
from mindcv_poolformer.models.deploy.poolformer import DeployedPoolFormer
from mindcv_poolformer.models.variants import Variant
from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.tasks import exporting

pytestmark = pytest.mark.long

Export = Callable[..., None]
TWO_BLOCKS = "poolformer_t2"
DEPTHS, DIMS = (1, 0, 0, 1), (8, 16, 24, 32)


@pytest.fixture(autouse=True, scope="module")
def _known() -> Iterator[None]:
    variant = Variant(DEPTHS, DIMS, 0.1, 0.9, 0, 0.0, 0.0, layer_scale_init=1e-5)
    registry.register(TWO_BLOCKS, variant)
    yield
    forget(TWO_BLOCKS)


def make_network() -> nn.Cell:
    return load_official_weights(PoolFormer(DEPTHS, DIMS, num_classes=10)).set_train(False)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "best.ckpt"
    return write_checkpoint(make_network(), TWO_BLOCKS, path)


@pytest.fixture(scope="module")
def expected(inputs: np.ndarray) -> np.ndarray:
    return logits_of(make_network(), inputs)


@pytest.fixture
def run_export(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """``run_export(*flags)`` for the recipe that ``checkpoint`` was trained with."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {TWO_BLOCKS}\ndevice_target: CPU\nmode: 1\nlr: 0.001\nscheduler: constant\n"
        "image_resize: 32\ncrop_pct: 0.8\nval_interpolation: bicubic\n"
        "mean: [120, 115, 100]\nstd: [60, 50, 55]\n"
        f"data_dir: {tmp_path / 'data'}\nckpt_save_dir: {checkpoint.parent}\n"
    )

    def run(*flags: str) -> None:
        words = ["--config", str(recipe), "--export_dir", str(tmp_path / "out"), *flags]
        monkeypatch.setattr("sys.argv", ["export.py", *words])
        export.main()

    return run


def with_metadata(checkpoint: Path, path: Path, **changes: Any) -> str:
    """A copy of the checkpoint with other metadata; None takes an entry out."""
    entries = ms.load_checkpoint(str(checkpoint))
    metadata = json.loads(entries.pop("metadata")) | changes
    metadata = {key: value for key, value in metadata.items() if value is not None}
    rows = [{"name": name, "data": value} for name, value in entries.items()]
    ms.save_checkpoint(rows, str(path), append_dict={"metadata": json.dumps(metadata)})
    return str(path)


def test_sample_images_are_spread_over_the_validation_classes(
    run_export: Export, tmp_path: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, count in (("a", 20), ("b", 1), ("c", 3)):
        (tmp_path / "data" / "val" / name).mkdir(parents=True)
        for index in range(count):
            shutil.copy(pictures[0], tmp_path / "data" / "val" / name / f"{index:02d}.png")
    opened: list[str] = []
    monkeypatch.setattr(
        classifiers, "open_image", lambda path, c: opened.append(str(path)) or open_image(path, c)
    )
    run_export("--deploy", "false")
    names = [path[len(str(tmp_path / "data" / "val")) + 1 :] for path in opened]
    first = ["a/00.png", "b/00.png", "c/00.png", "a/01.png", "c/01.png", "a/02.png", "c/02.png"]
    assert names == first + [f"a/{index:02d}.png" for index in range(3, 12)]
    description = json.loads((tmp_path / "out" / "model.json").read_text())
    proof = description["verification"][0]
    assert (proof["images"], proof["samples"]) == (16, "val_split")
    assert description["form"] == "plain"
    assert b"layer_scale_2" in (tmp_path / "out" / "model.mindir").read_bytes()


def test_without_a_data_set_photographs_prove_it(
    run_export: Export,
    tmp_path: Path,
    checkpoint: Path,
    inputs: np.ndarray,
    expected: np.ndarray,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_export()
    description = json.loads((tmp_path / "out" / "model.json").read_text())
    assert description["form"] == "deploy"
    assert b"layer_scale_2" not in (tmp_path / "out" / "model.mindir").read_bytes()
    proofs = description["verification"]
    told = "16 crops of scikit-learn's china.jpg and flower.jpg"
    assert {proof["file_format"] for proof in proofs} == {"MINDIR", "ONNX"}
    assert {(proof["images"], proof["samples"]) for proof in proofs} == {(16, told)}
    said = f"sample_images: found no folder {tmp_path / 'data'}, so the proof is on {told}"
    printed = capsys.readouterr().out
    assert printed.splitlines().count(said) == 1
    assert "ONNX at 32 px: logits on 16 images within" in printed
    for runtime in ("onnx", "mindspore"):
        bundle = load_bundle(tmp_path / "out", runtime=runtime)
        np.testing.assert_allclose(bundle.logits(inputs), expected, atol=1e-4)
    # what is proven is the network on the photographs, as validation would prepare them
    golden = np.load(tmp_path / "out" / "golden.npz")
    transform = load_bundle(tmp_path / "out").transform
    images = np.stack([transform(crop) for crop in photograph_crops(3)[:4]])
    np.testing.assert_array_equal(golden["images"], images)


def test_foreign_checkpoint(
    run_export: Export,
    tmp_path: Path,
    checkpoint: Path,
    pictures: list[Path],
    inputs: np.ndarray,
    expected: np.ndarray,
    capsys: pytest.CaptureFixture[str],
) -> None:
    entries = ms.load_checkpoint(str(checkpoint))
    del entries["metadata"]
    foreign = tmp_path / "foreign.ckpt"
    ms.save_checkpoint([{"name": k, "data": v} for k, v in entries.items()], str(foreign))
    flags = ("--file_format", "MINDIR", "--sample_images", str(pictures[0].parent))
    run_export("--ckpt_path", str(foreign), *flags)
    bundle = load_bundle(tmp_path / "out")
    assert bundle.classes == tuple("0123456789")
    np.testing.assert_allclose(bundle.logits(inputs), expected, atol=1e-5)
    printed = capsys.readouterr().out
    assert printed.count("classes: outputs 0 to 9 have no name") == 1
    assert f"{tmp_path / 'out' / 'model.mindir'}: {TWO_BLOCKS} in fp32, deploy form, 0." in printed


def test_a_deploy_form_that_fails_its_proof_gives_way_aloud(
    run_export: Export,
    tmp_path: Path,
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fold_badly(model: PoolFormer) -> DeployedPoolFormer:
        folded = to_deploy(model)
        folded.head.bias.set_data(folded.head.bias + 1)
        return folded

    monkeypatch.setattr(mindir, "to_deploy", fold_badly)
    flags = ("--sample_images", str(pictures[0].parent))
    with pytest.raises(UserError, match="found logits of the MINDIR up to 1 off the checkpoint"):
        run_export(*flags, "--deploy", "true")
    assert not (tmp_path / "out").exists()
    run_export(*flags)
    assert "up to 1 off the checkpoint's" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "model.json").read_text())["form"] == "plain"


def test_an_onnx_graph_that_fails_its_proof_is_left_out_aloud(
    run_export: Export,
    tmp_path: Path,
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And costs the MINDIR nothing; where it is asked for, it is an error."""

    def write_badly(network: nn.Cell, *arguments: Any, **ends: Any) -> None:
        bias = network.head.bias
        before = bias.asnumpy().copy()
        bias.set_data(Tensor(before + 1))
        write_well(network, *arguments, **ends)
        bias.set_data(Tensor(before))

    write_well = write.write_onnx
    monkeypatch.setattr(write, "write_onnx", write_badly)
    flags = ("--sample_images", str(pictures[0].parent))
    run_export(*flags)
    out = capsys.readouterr().out
    assert "model.onnx: export: found logits of the ONNX up to 1 off the checkpoint's" in out
    assert "; writing the bundle without it\n" in out
    description = json.loads((tmp_path / "out" / "model.json").read_text())
    assert (description["form"], "model.onnx" in description["graphs"]) == ("deploy", False)
    with pytest.raises(UserError, match="found logits of the ONNX up to 1 off the checkpoint"):
        run_export(*flags, "--file_format", "ONNX", "--overwrite")


def test_every_choice_from_the_command_line(
    run_export: Export,
    tmp_path: Path,
    pictures: list[Path],
    inputs: np.ndarray,
    expected: np.ndarray,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "key").write_bytes(bytes(range(32)))
    flags = ("--input", "uint8", "--output", "probabilities", "--export_image_size", "32", "48")
    flags += ("--export_batch_size", "1", "4", "--enc_key_file", str(tmp_path / "key"))
    run_export("--sample_images", str(pictures[0].parent), *flags)
    description = json.loads((tmp_path / "out" / "model.json").read_text())
    assert description["input"]["shape"] == [None, 32, 32, 3]
    assert description["encryption"] == "AES-GCM"
    assert sorted(tuple(graph.values()) for graph in description["graphs"].values()) == [
        (1, 32),
        (1, 48),
        (4, 32),
        (4, 48),
    ]
    bundle = load_bundle(tmp_path / "out", key_file=tmp_path / "key")
    assert bundle.runtime == "mindspore"
    images = [open_image(path) for path in pictures]
    softmax = np.exp(expected) / np.exp(expected).sum(1, keepdims=True)
    np.testing.assert_allclose(bundle.classify(images), softmax, atol=1e-4)
    printed = capsys.readouterr().out
    assert "MINDIR at 48 px: log-probabilities on 5 images within" in printed
    beside = ", ".join(f"model_{graph}.mindir" for graph in ("32px_b4", "48px_b1", "48px_b4"))
    assert f"beside it: {beside}\n" in printed
    assert printed.startswith("model.onnx: not written, since it would not be encrypted\n")


def test_int8_is_calibrated_on_the_training_split_and_proven_on_the_validation_split(
    run_export: Export,
    tmp_path: Path,
    pictures: list[Path],
    expected: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The folder of each picture is what the checkpoint takes it for, of one the next."""
    for split in ("train", "val"):
        for i, answer in enumerate((expected.argmax(1) + [0, 1, 0, 0, 0]) % 10):
            folder = tmp_path / "data" / split / CLASSES[answer]
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(pictures[i], folder)
    run_export("--precision", "int8", "--input", "uint8", "--export_image_size", "32", "48")
    told = json.loads((tmp_path / "out" / "model.json").read_text())
    proofs = [proof for proof in told["verification"] if proof["compared"] == "int8 with fp32"]
    assert [(proof["image_size"], proof["images"]) for proof in proofs] == [(32, 5), (48, 5)]
    assert proofs[0]["top1"] == {"fp32": 80.0, "int8": 80.0}
    assert (proofs[0]["top1_agreement"], proofs[0]["samples"]) == (1.0, "val_split")
    printed = capsys.readouterr().out
    assert f"{tmp_path / 'out' / 'model.mindir'}: {TWO_BLOCKS} in fp32, deploy form, 0." in printed
    assert f"{tmp_path / 'out' / 'model.onnx'}: the same in int8, 0." in printed
    assert "int8 with fp32 at 32 px: top-1 equal on 100.0% of 5 images, top-1 80.00 %" in printed

    monkeypatch.setattr(exporting, "MOST_CALIBRATION_IMAGES", 3)
    monkeypatch.setattr(exporting, "MOST_PROOF_IMAGES", 4)
    asked: list[Int8Images] = []

    def stop(*_: Any, int8: Int8Images, **__: Any) -> None:
        asked.append(int8)
        raise InterruptedError

    monkeypatch.setattr(export, "write_bundle", stop)
    flags = ("--calibration_images", str(pictures[0]), "--sample_images", str(pictures[0].parent))
    for words in ((), flags):
        with pytest.raises(InterruptedError):
            run_export("--precision", "int8", *words)
    train, val = (sorted((tmp_path / "data" / split).glob("*/*.png")) for split in ("train", "val"))
    assert asked[0].calibration == [train[0], train[2], train[4]]
    assert asked[0].proof == [*val[:3], val[4]]
    named = [CLASSES.index(path.parent.name) for path in asked[0].proof]
    assert asked[0].labels is not None and asked[0].labels.tolist() == named
    assert asked[1].calibration == [pictures[0]]
    assert (asked[1].origin, asked[1].labels) == ("sample_images", None)
    assert asked[1].proof == [*pictures[:3], pictures[4]]


def test_without_onnx_runtime_the_mindir_is_alone(
    run_export: Export,
    tmp_path: Path,
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    find_spec = choices.find_spec
    monkeypatch.setattr(
        choices, "find_spec", lambda name: None if name == "onnxruntime" else find_spec(name)
    )
    with pytest.raises(UserError, match="file_format: found ONNX without the package onnxruntime"):
        run_export("--file_format", "ONNX")
    run_export("--sample_images", str(pictures[0].parent))
    said = "model.onnx: not written, without the package onnxruntime: pip install onnxruntime\n"
    assert capsys.readouterr().out.startswith(said)
    assert list(json.loads((tmp_path / "out" / "model.json").read_text())["graphs"]) == [
        "model.mindir"
    ]


@pytest.mark.parametrize(
    ("changes", "folders", "names"),
    [
        ({}, 10, [f"class {letter}" for letter in "abcdefghij"]),
        ({"classes": ["cat", "dog"]}, 10, ["cat", "dog", *"23456789"]),
        ({"classes": None}, 10, [f"n{index}" for index in range(10)]),
        ({"classes": None}, 9, list("0123456789")),
        ({"classes": None, "num_classes": None}, 10, [f"n{index}" for index in range(10)]),
    ],
)
def test_class_names(
    run_export: Export,
    tmp_path: Path,
    checkpoint: Path,
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    folders: int,
    names: list[str],
) -> None:
    for index in range(folders):
        (tmp_path / "data" / "train" / f"n{index}").mkdir(parents=True)
    seen: list[Trained] = []

    def stop(trained: Trained, *_: Any, **__: Any) -> None:
        seen.append(trained)
        raise InterruptedError

    monkeypatch.setattr(export, "write_bundle", stop)
    path = with_metadata(checkpoint, tmp_path / "changed.ckpt", **changes)
    with pytest.raises(InterruptedError):
        run_export("--ckpt_path", path, "--sample_images", str(pictures[0]))
    assert list(seen[0].classes) == names


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--file_format", "AIR"], "file_format: found AIR on the CPU, expected MINDIR: .* Ascend"),
        (["--enc_key_file", "nokey"], "key file nokey: found 'No such file or directory'"),
        (["--file_format", "ONNX", "--deploy", "false"], "deploy: found false with file_format"),
        (["--crop_pct", "0.9"], "crop_pct: found 0.9 in the recipe, expected 0.8 as in .*best"),
        (["--image_resize", "64"], "image_resize: found 64 in the recipe, expected 32"),
        (["--val_interpolation", "bilinear"], "val_interpolation: found bilinear .* bicubic"),
        (["--mean", "1", "2", "3"], r"mean: found \(1.0, 2.0, 3.0\) .* \(120.0, 115.0, 100.0\)"),
        (["--model", "poolformer_s24"], f"model: found poolformer_s24 .* {TWO_BLOCKS}"),
        (["--num_classes", "7"], r"best.ckpt: 2 parameters .* head.weight"),
        (["--ckpt_path", "nowhere.ckpt"], "nowhere.ckpt: found no such file"),
        (["--data_dir", "."], "sample_images: found no folder val, expected --sample_images"),
        (["--sample_images", "nowhere.png"], "image nowhere.png does not exist"),
        (["--calibration_images", "."], "calibration_images: found it with precision fp32"),
        (["--precision", "int8"], "calibration_images: found no folder .*data/train for precision"),
        (["--precision", "int8", "--calibration_images", "."], "sample_images: found no folder .*"),
        (["--precision", "int8", "--file_format", "MINDIR"], "found int8 with file_format MINDIR"),
        (["--precision", "int8", "--deploy", "false"], "deploy: found false with file_format ONNX"),
        (["--precision", "int8", "--enc_key_file", "key"], "enc_key_file: found one with file_for"),
    ],
)
def test_mistakes_take_one_line_and_leave_nothing(
    run_export: Export,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    message: str,
) -> None:
    (tmp_path / "key").write_bytes(bytes(16))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        run_export(*flags)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
