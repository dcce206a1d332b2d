from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from official import load_official_weights

from mindcv_poolformer.models import PoolFormer
from mindcv_poolformer.runtime.checkpoint_file import read_checkpoint
from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.weights import ModelWeights, load_weights, start_from
from mindcv_poolformer.weights.load import adapt_stem

SMALL = {"depths": (1, 1, 1, 1), "dims": (4, 8, 8, 16)}


def values(network: PoolFormer) -> dict[str, np.ndarray]:
    return {p.name: p.asnumpy() for p in network.get_parameters()}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "model.ckpt"
    network = load_official_weights(PoolFormer(**SMALL, num_classes=5))
    ms.save_checkpoint(network, str(path), append_dict={"metadata": json.dumps({"epoch": 3})})
    return path


@pytest.fixture
def weights(checkpoint: Path) -> ModelWeights:
    """Those of a network too small to be a variant."""
    arrays = {name: p.asnumpy() for name, p in read_checkpoint(checkpoint).weights.items()}
    return ModelWeights(arrays, "small", 5, 3, "norm_pool", ("a", "b"), None, "MindCV", checkpoint)


def test_every_weight_arrives(weights: ModelWeights) -> None:
    network = PoolFormer(**SMALL, num_classes=5)
    load_weights(network, weights)
    assert network.classes == ("a", "b")
    expected = values(load_official_weights(PoolFormer(**SMALL, num_classes=5)))
    for name, value in values(network).items():
        assert (value == expected[name]).all(), name


def test_training_state_is_no_weight(tmp_path: Path) -> None:
    network = PoolFormer(**SMALL, num_classes=5)
    rows = [{"name": p.name, "data": p} for p in network.get_parameters()]
    rows.append({"name": "train.exp_avg.head.weight", "data": Tensor(np.ones(3, np.float32))})
    ms.save_checkpoint(rows, str(tmp_path / "run.ckpt"))
    checkpoint = read_checkpoint(tmp_path / "run.ckpt")
    assert set(checkpoint.state) == {"exp_avg.head.weight"}
    assert set(checkpoint.weights) == set(values(network))
    assert checkpoint.metadata == {}


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
    weights: ModelWeights, settings: dict, said: str
) -> None:
    network = PoolFormer(**(SMALL | settings))
    before = values(network)
    with pytest.raises(UserError) as error:
        load_weights(network, weights)
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


@pytest.mark.parametrize("num_classes", [7, 0])
def test_other_classes_keep_all_but_the_head(weights: ModelWeights, num_classes: int) -> None:
    network = PoolFormer(**SMALL, num_classes=num_classes)
    before = values(network)
    said = start_from(network, weights)
    assert said.count("\n") == 0
    assert ("new and untrained, for 7 classes" if num_classes else "head is left out") in said
    assert network.classes == ()
    for name, value in values(network).items():
        expected = before if name.startswith("head.") else weights.values
        assert (value == expected[name]).all(), name


def test_feature_maps_keep_the_backbone(weights: ModelWeights) -> None:
    network = PoolFormer(**SMALL, features_only=True, out_indices=(1, 3))
    assert "the norms of the maps are new" in start_from(network, weights)
    own = {f"norm{i}.{leaf}" for i in (2, 6) for leaf in ("gamma", "beta")}
    backbone = {name for name in weights.values if not name.startswith(("norm.", "head."))}
    loaded = values(network)
    assert set(loaded) == own | backbone
    for name in backbone:
        assert (loaded[name] == weights.values[name]).all(), name


def test_the_head_stays_where_it_fits(weights: ModelWeights) -> None:
    network = PoolFormer(**SMALL, num_classes=5)
    assert ";" not in start_from(network, weights)
    assert (values(network)["head.weight"] == weights.values["head.weight"]).all()
    assert network.classes == ("a", "b")


@pytest.mark.parametrize(
    ("theirs", "ours", "said"),
    [
        ("abcde", "vwxyz", "for 5 classes: class 0 is a in the weights, v in the images"),
        ("abcde", "abxde", "for 5 classes: class 2 is c in the weights, x in the images"),
        ("abcde", "abced", "5 classes, whose order is another: class 3 is d in the weights, e in"),
        ("ab", "abc", "class 2 is without a name in the weights, c in the images"),
        ("abc", "ab", "class 2 is c in the weights, without a name in the images"),
    ],
)
def test_as_many_other_classes_get_a_new_head(
    weights: ModelWeights, theirs: str, ours: str, said: str
) -> None:
    network = PoolFormer(**SMALL, num_classes=5)
    before = values(network)
    line = start_from(network, replace(weights, classes=tuple(theirs)), list(ours))
    assert "; the head is new and untrained, for 5 classes" in line
    assert said in line and "\n" not in line
    assert network.classes == tuple(ours)
    for name, value in values(network).items():
        expected = before if name.startswith("head.") else weights.values
        assert (value == expected[name]).all(), name


@pytest.mark.parametrize(
    ("known", "ours", "names"),
    [
        ({"classes": tuple("abcde")}, "abcde", "abcde"),
        ({"classes": ()}, "vwxyz", "vwxyz"),
        ({"classes": tuple("abcde"), "for_people": True}, "vwxyz", "abcde"),
    ],
)
def test_the_same_or_unknown_classes_keep_the_head(
    weights: ModelWeights, known: dict, ours: str, names: str
) -> None:
    network = PoolFormer(**SMALL, num_classes=5)
    assert ";" not in start_from(network, replace(weights, **known), tuple(ours))
    assert network.classes == tuple(names)
    for name in ("head.weight", "head.bias"):
        assert (values(network)[name] == weights.values[name]).all()
    network.reset_classifier(5)
    assert (network.classes, network.for_people) == ((), False)


@pytest.mark.long
def test_other_channels_only_where_they_are_asked_for(weights: ModelWeights) -> None:
    network = PoolFormer(**SMALL, num_classes=5, in_channels=1)
    with pytest.raises(UserError, match="patch_embed.proj.weight found"):
        start_from(network, weights)
    said = start_from(network, weights, any_channels=True)
    assert said.endswith("adapted to 1 input channel")
    # A grey image gives what the same image gives in three equal channels.
    colour = PoolFormer(**SMALL, num_classes=5)
    load_weights(colour, weights)
    image = np.random.default_rng(0).standard_normal((1, 1, 32, 32)).astype(np.float32)
    grey = network.set_train(False)(Tensor(image)).asnumpy()
    rgb = colour.set_train(False)(Tensor(image.repeat(3, axis=1))).asnumpy()
    np.testing.assert_allclose(grey, rgb, atol=1e-4)


@pytest.mark.parametrize(
    ("in_channels", "expected"),
    [(1, [7]), (2, [1.5, 3]), (4, [0.75, 1.5, 3, 0.75]), (6, [0.5, 1, 2, 0.5, 1, 2])],
)
def test_stem_as_timm(in_channels: int, expected: list[float]) -> None:
    weight = np.array([1, 2, 4], np.float32).reshape(1, 3, 1, 1)
    adapted = adapt_stem(weight, in_channels)
    assert adapted.dtype == np.float32
    assert adapted.ravel().tolist() == expected
