from __future__ import annotations

import json
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from official import load_official_weights

from mindcv_poolformer.models import PoolFormer
from mindcv_poolformer.runtime.checkpoint_file import read_checkpoint
from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.weights import load_weights

SMALL = {"depths": (1, 1, 1, 1), "dims": (4, 8, 8, 16)}


def values(network: PoolFormer) -> dict[str, np.ndarray]:
    return {p.name: p.asnumpy() for p in network.get_parameters()}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "model.ckpt"
    network = load_official_weights(PoolFormer(**SMALL, num_classes=5))
    ms.save_checkpoint(network, str(path), append_dict={"metadata": json.dumps({"epoch": 3})})
    return path


def test_every_weight_arrives(checkpoint: Path) -> None:
    network = PoolFormer(**SMALL, num_classes=5)
    assert load_weights(network, checkpoint) == {"epoch": 3}
    expected = values(load_official_weights(PoolFormer(**SMALL, num_classes=5)))
    for name, value in values(network).items():
        assert (value == expected[name]).all(), name


def test_training_state_is_no_weight(tmp_path: Path) -> None:
    network = PoolFormer(**SMALL, num_classes=5)
    rows = [{"name": p.name, "data": p} for p in network.get_parameters()]
    rows.append({"name": "train.exp_avg.head.weight", "data": Tensor(np.ones(3, np.float32))})
    ms.save_checkpoint(rows, str(tmp_path / "run.ckpt"))
    assert load_weights(network, tmp_path / "run.ckpt") == {}
    assert set(read_checkpoint(tmp_path / "run.ckpt").state) == {"exp_avg.head.weight"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"num_classes": 6},
            "2 parameters do not fit the model: head.weight found (5, 16), expected (6, 16); "
            "head.bias found (5,), expected (6,)",
        ),
        ({"num_classes": 0}, "head.weight is not in the model; head.bias is not in the model"),
        (
            {"depths": (1, 1, 1, 2), "num_classes": 5},
            "10 parameters do not fit the model: network.6",
        ),
        ({"depths": (1, 1, 2, 2), "num_classes": 5}, "; and 10 more"),
    ],
)
def test_misfits_are_named_and_nothing_is_loaded(
    checkpoint: Path, settings: dict, said: str
) -> None:
    network = PoolFormer(**(SMALL | settings))
    before = values(network)
    with pytest.raises(UserError) as error:
        load_weights(network, checkpoint)
    assert said in str(error.value)
    assert str(error.value).count(";") <= 10
    for name, value in values(network).items():
        assert (value == before[name]).all()


def test_no_checkpoint(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(UserError, match="nope.ckpt: found no such file"):
        read_checkpoint(tmp_path / "nope.ckpt")
    content = checkpoint.read_bytes()
    for broken in (b"", b"not a checkpoint", content[: len(content) // 2]):
        (tmp_path / "broken.ckpt").write_bytes(broken)
        with pytest.raises(UserError, match="broken.ckpt: found no readable MindSpore checkpoint"):
            read_checkpoint(tmp_path / "broken.ckpt")
