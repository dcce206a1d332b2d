from __future__ import annotations

from pathlib import Path

import mindcv
import mindspore as ms
import numpy as np
import pytest
from mindspore import nn
from official import load_official_weights
from small_network import SMALL

from mindcv_poolformer.models import PoolFormer, StagedClassifier
from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.weights import load_weights, read_weights, save_weights

pytestmark = pytest.mark.usefixtures("small_is_known")

PREPROCESSING = {
    "image_size": 32,
    "crop_pct": 1.0,
    "interpolation": "bilinear",
    "mean": [51.0] * 3,
    "std": [102.0] * 3,
    "pixel_range": [0, 255],
}


def network_of(name: str, **settings: object) -> StagedClassifier:
    network = mindcv.create_model(name, num_classes=3, **settings).set_train(False)
    return load_official_weights(network)


@pytest.mark.parametrize(
    ("target", "form", "for_people"),
    [
        ("x.ckpt", None, False),
        ("x.ckpt", None, True),
        ("x.safetensors", None, True),
        ("hub", None, True),
        ("hub.v1", "hf", True),
    ],
)
def test_all_that_a_network_knows_comes_back(
    tmp_path: Path, target: str, form: str | None, for_people: bool
) -> None:
    network = network_of(SMALL)
    network.classes, network.for_people = ("chat", "zèbre", "chien"), for_people
    network.preprocessing = PREPROCESSING
    expected = {p.name: p.asnumpy() for p in network.get_parameters()}
    save_weights(network, tmp_path / target, form)
    save_weights(network, str(tmp_path / target), form)  # as every save, it replaces
    weights = read_weights(tmp_path / target)
    assert weights.values.keys() == expected.keys()
    for name, value in expected.items():
        assert weights.values[name].tobytes() == value.tobytes(), name
    assert weights.classes == ("chat", "zèbre", "chien")
    assert weights.for_people == for_people
    assert weights.preprocessing == PREPROCESSING
    again = mindcv.create_model(SMALL, num_classes=3)
    load_weights(again, weights)
    assert (again.id2label, again.for_people) == (network.id2label, for_people)
    assert again.preprocessing == PREPROCESSING


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("caformer_s18_384", marks=pytest.mark.long),
        "identityformer_s12",
        "metaformer_id_s12",
    ],
)
def test_siblings_are_told_apart(tmp_path: Path, name: str) -> None:
    network = network_of(name)
    save_weights(network, tmp_path / "x.ckpt")
    assert read_weights(tmp_path / "x.ckpt").model == name
    ms.load_param_into_net(network, ms.load_checkpoint(str(tmp_path / "x.ckpt")), strict_load=True)


def test_a_part_of_a_cell_in_float16_without_a_variant(tmp_path: Path) -> None:
    network = load_official_weights(PoolFormer((2, 2, 6, 2), (64, 128, 320, 512), num_classes=0))
    values = {p.name: p.asnumpy().astype(np.float16) for p in network.get_parameters()}
    whole = nn.SequentialCell(network.to_float(ms.float16))
    for parameter in whole.get_parameters():
        parameter.set_dtype(ms.float16)
        assert parameter.name not in values
    save_weights(network, tmp_path / "x.safetensors")
    weights = read_weights(tmp_path / "x.safetensors")
    assert (weights.model, weights.num_classes) == ("poolformer_s12", 0)
    for name, value in values.items():
        assert (weights.values[name] == value).all(), name


def test_what_cannot_be_saved_leaves_all_as_it_was(tmp_path: Path) -> None:
    network = network_of(SMALL)
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "photo.jpg").write_bytes(b"of somebody's")
    maps = mindcv.create_model(SMALL, features_only=True)
    timm = network_of(SMALL, head="pool_norm")
    network.classes = ("a", "b", "c", "d")
    for refused, target, said in (
        (network, "x.ckpt", "x.ckpt: found 4 class names, expected at most 3"),
        (network, "x.pt", "x.pt: found '.pt', expected .ckpt, .safetensors, .*, or .pth for MMSeg"),
        (network, "hub", "hub: found something else there, expected what hf would replace"),
        (maps, "x.ckpt", "x.ckpt: 10 parameters do not fit the model: norm.gamma is missing"),
        (timm, "folder", "folder: found weights for the head pool_norm, expected norm_pool"),
    ):
        with pytest.raises(UserError, match=said):
            save_weights(refused, tmp_path / target)
    assert [path.name for path in tmp_path.rglob("*")] == ["hub", "photo.jpg"]
