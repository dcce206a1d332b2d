from __future__ import annotations

import argparse
import datetime
import json
import os
import pickle
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from safetensors.numpy import save_file

from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.weights.read import HEADER, read_source

VALUES = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array([0.1], np.float32),
}


def same(found: dict[str, np.ndarray]) -> bool:
    assert all(value.dtype == np.float32 for value in found.values())
    return found.keys() == VALUES.keys() and all((found[k] == VALUES[k]).all() for k in VALUES)


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch", reason="reading pickles needs torch")


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self.target}'",)


def test_safetensors(tmp_path: Path) -> None:
    save_file(VALUES, tmp_path / "x.safetensors", {"format": "pt"})
    source = read_source(tmp_path / "x.safetensors")
    assert same(source.values)
    assert source.metadata == {}
    save_file(VALUES, tmp_path / "x.safetensors", {HEADER: '{"model": "m"}'})
    assert read_source(tmp_path / "x.safetensors").metadata == {"model": "m"}


def test_half_precision_is_widened(tmp_path: Path) -> None:
    save_file({"a": np.array([0.1], np.float16)}, tmp_path / "x.safetensors")
    (value,) = read_source(tmp_path / "x.safetensors").values.values()
    assert value.dtype == np.float32
    assert value[0] == 0.0999755859375  # the float16 next to 0.1


def test_mindspore_checkpoint_without_training_state(tmp_path: Path) -> None:
    rows = [{"name": name, "data": Tensor(value)} for name, value in VALUES.items()]
    rows.append({"name": "train.exp_avg.b", "data": Tensor(np.ones(1, np.float32))})
    ms.save_checkpoint(rows, str(tmp_path / "x.ckpt"), append_dict={"metadata": '{"epoch": 2}'})
    source = read_source(tmp_path / "x.ckpt")
    assert same(source.values)
    assert source.metadata == {"epoch": 2}


def test_a_checkpoint_of_lightning(tmp_path: Path, torch: Any) -> None:
    tensors = {k: torch.tensor(v) for k, v in VALUES.items()}
    torch.save({"state_dict": tensors, "loops": {}}, tmp_path / "epoch=1-step=9.ckpt")
    source = read_source(tmp_path / "epoch=1-step=9.ckpt")
    assert same(source.values)
    assert (source.taken, source.left) == ("state_dict", ("loops",))


@pytest.mark.parametrize("name", ["x.pth.tar", "x.pth", "pytorch_model.bin"])
@pytest.mark.parametrize("zipped", [True, False])
def test_pickles(tmp_path: Path, torch: Any, name: str, zipped: bool) -> None:
    tensors = {k: torch.from_numpy(v) for k, v in VALUES.items()}
    for content in (tensors, {"state_dict": tensors, "epoch": 3, "arch": "poolformer_s12"}):
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=zipped)
        assert same(read_source(tmp_path / name).values)


def test_folder_prefers_safetensors(tmp_path: Path, torch: Any) -> None:
    torch.save({"other": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    assert list(read_source(tmp_path).values) == ["other"]
    save_file(VALUES, tmp_path / "model.safetensors")
    source = read_source(tmp_path)
    assert same(source.values)
    assert source.path == tmp_path / "model.safetensors"


@pytest.mark.parametrize("by_torch", [True, False])
def test_a_hostile_pickle_does_not_run(tmp_path: Path, torch: Any, by_torch: bool) -> None:
    ran = tmp_path / "ran"
    content = {"state_dict": {"a": torch.zeros(1)}, "args": Hostile(ran)}
    if by_torch:
        torch.save(content, tmp_path / "x.pth")
    else:
        (tmp_path / "x.pth").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(UserError, match="x.pth: found more than tensors") as error:
        read_source(tmp_path / "x.pth")
    assert "\n" not in str(error.value)
    assert not ran.exists()
    torch.load(tmp_path / "x.pth", weights_only=False) if by_torch else pickle.loads(
        (tmp_path / "x.pth").read_bytes()
    )
    assert ran.exists()  # the payload is real


class Quiet(Hostile):
    """The same by a function that PyTorch does not refuse for its module."""

    def __reduce__(self) -> tuple:
        return eval, (f"open({str(self.target)!r}, 'w')",)


def test_what_a_training_checkpoint_calls_is_not_called(tmp_path: Path, torch: Any) -> None:
    ran = tmp_path / "ran"
    tensors = {k: torch.from_numpy(v) for k, v in VALUES.items()}
    torch.save({"state_dict": tensors, "args": Quiet(ran)}, tmp_path / "x.pth")
    assert same(read_source(tmp_path / "x.pth").values)
    assert not ran.exists()
    torch.load(tmp_path / "x.pth", weights_only=False)
    assert ran.exists()  # the payload is real


def test_a_pickle_of_other_things(tmp_path: Path, torch: Any) -> None:
    path = tmp_path / "x.pth"
    for content, said in [
        ({"args": argparse.Namespace(lr=1)}, "found no state dict"),
        ([torch.zeros(1)], "found no state dict"),
        ({"state_dict": {}}, "found no state dict"),
        ({"a": torch.zeros(1), "epoch": 3}, "1 entry other than named tensors, such as 'epoch'"),
        ({3: torch.zeros(1)}, "such as 3"),
        ({"a": torch.zeros(1, dtype=torch.float8_e4m3fn)}, "found a in float8_e4m3fn, expected"),
        ({"a": torch.full((1,), 1e39, dtype=torch.float64)}, "a in float64 beyond the range of"),
        ({"model": torch.nn.Linear(2, 2)}, "found no state dict, .*torch.load.FILE"),
    ]:
        torch.save(content, path)
        with pytest.raises(UserError, match=said):
            read_source(path)


def test_damaged_files(tmp_path: Path, torch: Any) -> None:
    tensors = {"a": torch.zeros(1000)}
    whole = {}
    for name, zipped in (("zipped.pth", True), ("plain.pth", False)):
        torch.save(tensors, tmp_path / name, _use_new_zipfile_serialization=zipped)
        whole[name] = (tmp_path / name).read_bytes()
    save_file(VALUES, tmp_path / "x.safetensors")
    whole["x.safetensors"] = (tmp_path / "x.safetensors").read_bytes()
    for name, content in whole.items():
        for broken in (b"", b"x", b"hello world" * 9, content[: len(content) // 2], content[:-9]):
            (tmp_path / name).write_bytes(broken)
            with pytest.raises(UserError, match=rf"{name}: found ") as error:
                read_source(tmp_path / name)
            assert "\n" not in str(error.value)


def test_every_float_becomes_float32(tmp_path: Path, torch: Any) -> None:
    from safetensors.torch import save_file as save_torch_file

    exact = {"a": torch.tensor([[1.5, -0.375], [2.0**-100, 3e38]]), "b": torch.tensor(0.25)}
    for dtype in (torch.bfloat16, torch.float64):
        tensors = {k: v.to(dtype) for k, v in exact.items()} | {"steps": torch.tensor(7)}
        torch.save(tensors, tmp_path / "x.pth")
        save_torch_file(tensors, tmp_path / "x.safetensors")
        ms.save_checkpoint(
            [
                {"name": k, "data": Tensor(v.float().numpy()).astype(getattr(ms, str(dtype)[6:]))}
                for k, v in tensors.items()
            ],
            str(tmp_path / "x.ckpt"),
        )
        for name in ("x.pth", "x.safetensors", "x.ckpt"):
            values = read_source(tmp_path / name).values
            for key in exact:
                assert values[key].dtype == np.float32
                np.testing.assert_array_equal(values[key], tensors[key].float().numpy())
    torch.save({"a": torch.zeros(1), "steps": torch.tensor(7)}, tmp_path / "x.pth")
    assert read_source(tmp_path / "x.pth").values["steps"].dtype == np.int64  # as it is
    save_torch_file({"a": torch.zeros(2).to(torch.float8_e5m2)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="found a in F8_E5M2, expected float32, float16, bfloat16"):
        read_source(tmp_path / "x.safetensors")


@dataclass
class Settings:
    """A class that a training checkpoint may hold, and that is not there when it is read."""

    rate: float
    where: Path


class NameDict(dict):
    pass


class NumberList(list):
    pass


def test_objects_beside_the_tensors_are_not_made(tmp_path: Path, torch: Any) -> None:
    path = tmp_path / "x.pth.tar"
    tensors = {k: torch.from_numpy(v) for k, v in VALUES.items()}
    beside = {
        "args": argparse.Namespace(lr=1e-3, model="poolformer_s12"),
        "settings": Settings(0.1, Path("/data")),
        "names": NameDict(a=1),
        "numbers": NumberList([1, 2]),
        "best": np.float64(77.2),
        "made": datetime.datetime(2026, 1, 1),
        "history": defaultdict(list, loss=[np.arange(3)]),
    }
    torch.save({"epoch": 5, **beside, "state_dict": tensors}, path)
    source = read_source(path)
    assert same(source.values)
    assert (source.taken, source.left) == ("state_dict", ("epoch", *beside))


def test_the_average_goes_before_the_weights(tmp_path: Path, torch: Any) -> None:
    good = {k: torch.from_numpy(v) for k, v in VALUES.items()}
    bad = {k: 0 * v for k, v in good.items()}
    for content, taken in [
        ({"state_dict": bad, "state_dict_ema": good, "optimizer": {}}, "state_dict_ema"),
        ({"model": bad, "model_ema": good}, "model_ema"),
        ({"model_ema": None, "model": good}, "model"),
        ({"model_state_dict": good, "optimizer_state_dict": {}}, "model_state_dict"),
        ({"state_dict": good, "ema_state_dict": bad}, "state_dict"),  # MMEngine swaps the two
        ({"model": "poolformer_s12", "state_dict": good}, "state_dict"),
        ({"state_dict": {"lr": 0.1}, "module": good}, "module"),
    ]:
        torch.save(content, tmp_path / "x.pth")
        source = read_source(tmp_path / "x.pth")
        assert same(source.values)
        assert source.taken == taken


def test_a_state_dict_by_another_name_and_deeper(tmp_path: Path, torch: Any) -> None:
    weights = {"fc.weight": torch.ones(2)}
    moments = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"params": [0]}]}
    endless: dict[str, Any] = {"epoch": 1}
    endless["self"] = endless
    for content, taken, left in (
        ({"weights": weights, "epoch": 3, "optimizer": moments}, "weights", ("epoch", "optimizer")),
        ({"checkpoint": {"model": {"state_dict": weights}}}, "checkpoint.model.state_dict", ()),
        ({"params": weights, "others": weights}, None, ()),
        (endless, None, ()),
    ):
        torch.save(content, tmp_path / "x.pth")
        if taken is None:
            with pytest.raises(UserError, match="found no state dict"):
                read_source(tmp_path / "x.pth")
            continue
        source = read_source(tmp_path / "x.pth")
        assert (source.taken, source.left) == (taken, left)
        assert source.values["fc.weight"].tolist() == [1, 1]


def test_an_index_of_several_files(tmp_path: Path, torch: Any) -> None:
    index = tmp_path / "model.safetensors.index.json"
    for number, (name, value) in enumerate(VALUES.items()):
        save_file({name: value}, tmp_path / f"model-{number}.safetensors")
    places = {name: f"model-{number}.safetensors" for number, name in enumerate(VALUES)}
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    for path in (tmp_path, index):
        source = read_source(path)
        assert same(source.values)
        assert source.path == index
    (tmp_path / "model-1.safetensors").rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"model-1.safetensors: found no such file"):
        read_source(tmp_path)
    save_file({"other": VALUES["b"]}, tmp_path / "model-1.safetensors")
    with pytest.raises(UserError, match=r"index.json: found no b in model-1.safetensors"):
        read_source(tmp_path)
    for text in ("", "[]", '{"weight_map": ["a"]}', '{"weight_map": {"a": 3}}'):
        index.write_text(text)
        with pytest.raises(UserError, match="index.json: found no readable index"):
            read_source(tmp_path)


def test_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.pth.tar").write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, "torch", None)  # makes the import fail
    with pytest.raises(UserError, match=r'found no torch, .* pip install "torch>=2.6"'):
        read_source(tmp_path / "x.pth.tar")


@pytest.mark.parametrize("version", ["2.5.1+cu121", "1.13.0"])
def test_an_old_torch(
    tmp_path: Path, torch: Any, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "x.pth")
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(UserError, match=rf"found torch {version[:5]}.*pip install"):
        read_source(tmp_path / "x.pth")


def test_no_such_file(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    for path, said in [
        (tmp_path / "nope.pth", "nope.pth: found no such file or folder"),
        (tmp_path, "found neither of model.safetensors, pytorch_model.bin"),
        (tmp_path / "notes.txt", r"found '.txt', expected one of .ckpt, .safetensors, .bin"),
    ]:
        with pytest.raises(UserError, match=said):
            read_source(path)
