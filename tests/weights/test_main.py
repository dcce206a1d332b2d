"""The command ``python -m mindcv_poolformer.weights``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import forked
import numpy as np
import pytest
from mindspore import Tensor
from official import official_name
from safetensors.numpy import load_file, save_file

from mindcv_poolformer.runtime.checkpoint_file import read_checkpoint, save_checkpoint
from mindcv_poolformer.runtime.errors import UserError

Command = Callable[..., str]


def test_convert_tells_what_it_found(
    command: Command, tmp_path: Path, official_file: Path, official_s12: dict
) -> None:
    printed = command("convert", official_file, "new/s12.ckpt")
    assert printed == (
        f"{official_file}: official (sail-sg) poolformer_s12, 1,000 classes, 3 input channels, "
        "head norm_pool\nnew/s12.ckpt: written as ckpt, 11,915,176 parameters\n"
    )
    converted = read_checkpoint(tmp_path / "new" / "s12.ckpt")
    entries, metadata = converted.weights, converted.metadata
    assert metadata == {
        "model": "poolformer_s12",
        "num_classes": 1000,
        "in_channels": 3,
        "head": "norm_pool",
    }
    assert {official_name(name) for name in entries} == set(official_s12)
    for name, value in entries.items():
        assert (value.asnumpy() == official_s12[official_name(name)]).all(), name


def test_convert_to_a_new_head(command: Command, tmp_path: Path, official_file: Path) -> None:
    printed = command("convert", official_file, "s12.safetensors", "--num_classes", "10")
    assert "s12.safetensors: the head is new and untrained, for 10 classes" in printed
    assert load_file(tmp_path / "s12.safetensors")["head.weight"].shape == (10, 512)


def test_a_folder_with_any_name(command: Command, tmp_path: Path, official_file: Path) -> None:
    assert "written as hf" in command("convert", official_file, "v1.0", "--to", "hf")
    files = ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert sorted(file.name for file in (tmp_path / "v1.0").iterdir()) == files
    with pytest.raises(UserError, match="v1.0: found it to exist"):
        command("convert", official_file, "v1.0", "--to", "hf")
    command("convert", official_file, "v1.0", "--to", "hf", "--overwrite")
    (tmp_path / "v1.0" / "thesis.tex").touch()
    with pytest.raises(UserError, match="v1.0: found something else there"):
        command("convert", official_file, "v1.0", "--to", "hf", "--overwrite")
    assert (tmp_path / "v1.0" / "thesis.tex").exists()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["v1.0"]


def test_a_file_is_kept_unless_told_otherwise(
    command: Command, tmp_path: Path, official_file: Path
) -> None:
    target = tmp_path / "s12.ckpt"
    target.write_text("mine")
    with pytest.raises(UserError, match="s12.ckpt: found it to exist, .* or --overwrite"):
        command("convert", official_file, target)
    with pytest.raises(UserError, match="nope.pth: found no such file"):
        command("convert", "nope.pth", target, "--overwrite")
    assert target.read_text() == "mine"
    command("convert", official_file, target, "--overwrite")
    assert read_checkpoint(target).metadata["model"] == "poolformer_s12"
    assert [entry.name for entry in tmp_path.iterdir()] == ["s12.ckpt"]


@pytest.mark.parametrize("name", ["x.ckpt", "x.safetensors", "x"])
def test_a_place_that_cannot_be_written(
    command: Command, tmp_path: Path, official_file: Path, name: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=rf"file/{name}: cannot be written"):
        command("convert", official_file, f"file/{name}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x.onnx"], "found '.onnx', expected .ckpt, .safetensors, or none for a"),
        (["x.ckpt", "--to", "safetensors"], "found '.ckpt', expected .safetensors"),
        (["x", "--to", "ckpt"], "found '', expected .ckpt"),
    ],
)
def test_unclear_targets(
    command: Command, official_file: Path, words: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        command("convert", official_file, *words)


def test_timm_weights_do_not_become_a_hugging_face_model(
    command: Command, tmp_path: Path, official_file: Path
) -> None:
    command("convert", official_file, "s12.ckpt")
    official = read_checkpoint(tmp_path / "s12.ckpt")
    metadata = official.metadata | {"head": "pool_norm"}
    save_checkpoint(tmp_path / "timm.ckpt", official.weights, metadata)
    with pytest.raises(UserError, match="hf: found weights for the head pool_norm, expected norm"):
        command("convert", "timm.ckpt", "hf")
    assert not (tmp_path / "hf").exists()


def test_average(command: Command, tmp_path: Path, official_s12: dict) -> None:
    for name, factor in (("a", 1), ("b", 2), ("c", 6)):
        values = {k: np.float32(factor) * v for k, v in official_s12.items()}
        save_file(values, tmp_path / f"{name}.safetensors")
    command("average", "a.safetensors", "b.safetensors", "c.safetensors", "mean.safetensors")
    for name, value in load_file(tmp_path / "mean.safetensors").items():
        np.testing.assert_allclose(value, 3 * official_s12[official_name(name)], rtol=1e-6)
    with pytest.raises(UserError, match="found only a.safetensors, expected two or more"):
        command("average", "a.safetensors", "mean.ckpt")


def test_extract_ema(command: Command, tmp_path: Path, official_file: Path) -> None:
    command("convert", official_file, "s12.ckpt")
    official = read_checkpoint(tmp_path / "s12.ckpt")
    weights, metadata = official.weights, official.metadata
    with pytest.raises(UserError, match="s12.ckpt: found no moving average, expected"):
        command("extract_ema", "s12.ckpt", "ema.ckpt")
    averages = {f"ema.{k}": Tensor(-v.asnumpy()) for k, v in weights.items() if k != "head.bias"}
    averages["global_step"] = Tensor(np.int32(3))
    last = tmp_path / "last.ckpt"
    save_checkpoint(last, weights, metadata, averages)
    assert "131 moving averages" in command("extract_ema", "last.ckpt", "ema.ckpt")
    extracted = read_checkpoint(tmp_path / "ema.ckpt")
    found = extracted.weights
    assert extracted.metadata == metadata
    assert found.keys() == weights.keys()
    for name, value in weights.items():
        sign = 1 if name == "head.bias" else -1  # frozen: has no average
        assert (found[name].asnumpy() == sign * value.asnumpy()).all(), name


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["convert", "nope.ckpt", "x.ckpt"], 1, "error: nope.ckpt: found no such file or folder"),
        (["convert", "a.ckpt", "x.ckpt", "--num_classes", "0"], 2, "expected an integer >= 1"),
        (["convert", "a.ckpt"], 2, "error: the following arguments are required: dest"),
        (["shrink"], 2, "error: argument COMMAND: invalid choice: 'shrink'"),
    ],
)
def test_errors_take_one_line(tmp_path: Path, words: list[str], code: int, said: str) -> None:
    ended = forked.call(tmp_path, ["-m", "mindcv_poolformer.weights", *words])
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err
    assert ended.err.count("\n") == 1
