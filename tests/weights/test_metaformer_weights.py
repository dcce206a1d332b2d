"""Weights of MetaFormers: official, timm's and ours; which variant's they are; where they go."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import mindcv
import numpy as np
import pytest
from mindspore import Tensor
from official import SHAPES, TIMM_OUTPUTS, official_state_dict, official_weight
from server import serving

from mindcv_poolformer import classify
from mindcv_poolformer.classification import processor_for
from mindcv_poolformer.config import ModelConfig
from mindcv_poolformer.models import VARIANTS
from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.weights import (
    ModelWeights,
    find_weights,
    load_weights,
    read_weights,
    start_from,
    write_weights,
)
from mindcv_poolformer.weights.__main__ import main
from mindcv_poolformer.weights.read import Source
from mindcv_poolformer.weights.recognise import recognise

# How far logits may be from timm's in float64. ConvFormer with these weights magnifies rounding:
# timm's own float32 logits are 1.2e-3 off.
TIMM_METAFORMERS = {"poolformerv2_s12": 1e-4, "convformer_s18": 2e-3, "caformer_s18": 1e-4}


def timm_source(variant: str, path: str = "model.safetensors") -> Source:
    """A state dict of timm's, as it names and shapes it."""
    shapes = TIMM_OUTPUTS[f"{variant}/shapes"]
    values = {
        str(name): official_weight(str(name), tuple(int(n) for n in shape if n))
        for name, shape in zip(TIMM_OUTPUTS[f"{variant}/names"], shapes, strict=True)
    }
    return Source(Path(path), values, {})


def official_source(variant: str, path: str = "x.pth", **metadata: str) -> Source:
    return Source(Path(path), official_state_dict(variant), metadata)


@pytest.fixture(scope="module")
def caformer() -> ModelWeights:
    return recognise(official_source("caformer_s18"))


@pytest.mark.long
@pytest.mark.parametrize("variant", TIMM_METAFORMERS)
def test_timm_weights_give_timm_logits(variant: str, pynative_mode: None) -> None:
    weights = recognise(timm_source(variant))
    assert (weights.model, weights.origin, weights.head) == (variant, "timm", "pool_norm")
    network = mindcv.create_model(variant).set_train(False)
    load_weights(network, weights)
    x = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    expected = TIMM_OUTPUTS[f"{variant}/logits"]
    np.testing.assert_allclose(
        network(Tensor(x)).asnumpy(), expected, rtol=0, atol=TIMM_METAFORMERS[variant]
    )


@pytest.mark.parametrize(
    "variant", ["randformer_s12", "poolformerv2_s12", "convformer_s18", "caformer_s18"]
)
def test_official_weights_come_under_our_names(variant: str) -> None:
    source = official_source(variant, f"{variant}.pth")
    weights = recognise(source)
    assert (weights.model, weights.origin) == (variant, "official (sail-sg)")
    assert len(weights.values) == len(source.values)
    for name, value in weights.values.items():
        official = re.sub(r"gamma$", "weight", re.sub(r"beta$", "bias", name))
        assert value is source.values[official]


@pytest.mark.parametrize("form", ["ckpt", "safetensors"])
def test_what_is_written_comes_back(caformer: ModelWeights, tmp_path: Path, form: str) -> None:
    few = replace(caformer.with_new_head(3), model="caformer_s18_384", classes=("a",))
    write_weights(few, tmp_path / f"x.{form}", form)
    again = read_weights(tmp_path / f"x.{form}")
    assert again.metadata == few.metadata
    assert (again.model, again.origin) == ("caformer_s18_384", "MindSpore")
    for name, value in few.values.items():
        assert again.values[name].tobytes() == value.tobytes(), name


def test_transformers_has_no_metaformer(caformer: ModelWeights, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="hf: found weights of a caformer_s18, expected .* PoolF"):
        write_weights(caformer, tmp_path / "hf", "hf")
    assert not (tmp_path / "hf").exists()


def test_a_new_head_keeps_all_but_the_last_layer(caformer: ModelWeights) -> None:
    few = caformer.with_new_head(7)
    assert few.values["head.fc2.weight"].shape == (7, 2048)
    assert few.values["head.fc1.weight"] is caformer.values["head.fc1.weight"]
    assert not few.values["head.fc2.bias"].any()
    headless = {k: v for k, v in caformer.values.items() if not k.startswith("head.")}
    whole = recognise(Source(Path("x.pth"), headless, {})).with_new_head(7)
    assert whole.values["head.norm.gamma"].tolist() == [1.0] * 2048
    network = mindcv.create_model("caformer_s18", num_classes=7)
    load_weights(network, whole)


def test_another_task_starts_from_them(caformer: ModelWeights) -> None:
    network = mindcv.create_model("caformer_s18_384", num_classes=7, in_channels=1)
    fresh = network.parameters_dict()["head.fc2.weight"].asnumpy().copy()
    said = start_from(network, caformer, any_channels=True)
    assert "the head's last layer is new and untrained, for 7 classes" in said
    now = {name: p.asnumpy() for name, p in network.parameters_dict().items()}
    assert (now["head.fc2.weight"] == fresh).all()
    assert (now["head.fc1.weight"] == caformer.values["head.fc1.weight"]).all()
    stem = "downsample_layers.0.conv.weight"
    assert (now[stem] == caformer.values[stem].sum(axis=1, keepdims=True)).all()
    maps = mindcv.create_model("caformer_s18", features_only=True)
    assert start_from(maps, caformer).endswith("; norm and head are left out")
    bare = mindcv.create_model("caformer_s18", num_classes=0)
    assert start_from(bare, caformer).endswith("; the head is left out")


@pytest.mark.long
def test_siblings_are_told_by_metadata_recipe_or_file() -> None:
    source = official_source("caformer_s18")
    assert recognise(source).model == "caformer_s18"
    assert recognise(source, "caformer_s18_384").model == "caformer_s18_384"
    named = replace(source, path=Path("a/caformer_s18_384.pth"))
    assert recognise(named).model == "caformer_s18_384"
    told = replace(named, metadata={"model": "caformer_s18"})
    assert recognise(told, "caformer_s18_384").model == "caformer_s18"
    assert recognise(source, "convformer_s18").model == "caformer_s18"


def test_weights_of_two_families_must_be_told() -> None:
    source = official_source("identityformer_s12")
    with pytest.raises(UserError, match="identityformer_s12 and poolformerv2_s12 have alike.*told"):
        recognise(source)
    for name in ("identityformer_s12", "poolformerv2_s12"):
        assert recognise(source, name).model == name
        assert recognise(replace(source, path=Path(f"{name}.pth"))).model == name
        assert recognise(replace(source, metadata={"model": name})).model == name


@pytest.mark.long
def test_recipes_take_siblings_and_no_others(caformer: ModelWeights, tmp_path: Path) -> None:
    file = tmp_path / "a.ckpt"
    write_weights(caformer, file, "ckpt")
    model = ModelConfig(model="caformer_s18_384", ckpt_path=str(file))
    assert find_weights(model).model == "caformer_s18"
    for other in ("convformer_s18", "poolformer_s12"):
        with pytest.raises(UserError, match=f"model: found {other} for .*, expected its caformer"):
            find_weights(replace(model, model=other))


def test_misfits_are_named_as_the_file_names_them() -> None:
    source = timm_source("caformer_s18")
    values = source.values
    del values["stages.2.blocks.3.res_scale1.scale"]
    values["stages.0.blocks.0.mlp.fc1.weight"] = np.zeros((3, 64, 1, 1), np.float32)
    values["aux.bias"] = np.zeros(3, np.float32)
    with pytest.raises(UserError) as error:
        recognise(source)
    for said in (
        "3 parameters do not fit the model",
        "stages.2.blocks.3.res_scale1.scale is missing",
        "stages.0.blocks.0.mlp.fc1.weight found (3, 64), expected (256, 64)",
        "aux.bias is not in the model",
    ):
        assert said in str(error.value)


def test_nobodys_metaformer() -> None:
    values = official_state_dict("caformer_s18")
    fewer = {k: v for k, v in values.items() if not k.startswith("stages.2.8.")}
    with pytest.raises(UserError, match=r"depths \(3, 3, 8, 3\) and a stem of 64 .*caformer_s18 "):
        recognise(Source(Path("x.pth"), fewer, {}))
    mixed = {k: v for k, v in values.items() if "stages.3" not in k or "token_mixer" not in k}
    with pytest.raises(UserError, match="token mixers conv, conv, attention, none in its stages"):
        recognise(Source(Path("x.pth"), mixed, {}))


def test_convert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="needs torch to write its files")
    values = official_state_dict("poolformerv2_s12")
    torch.save({k: torch.from_numpy(v) for k, v in values.items()}, tmp_path / "x.pth")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "sys.argv", ["weights", "convert", "x.pth", "y.ckpt", "--model", "poolformerv2_s12"]
    )
    main()
    assert read_weights("y.ckpt").model == "poolformerv2_s12"
    monkeypatch.setattr("sys.argv", ["weights", "convert", "y.ckpt", "z.ckpt", "--model", "no"])
    with pytest.raises(UserError, match="model: found 'no'"):
        main()
    assert not Path("z.ckpt").exists()


@pytest.mark.long
def test_published_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pynative_mode: None
) -> None:
    torch = pytest.importorskip("torch", reason="needs torch to write its files")
    values = official_state_dict("caformer_s18")
    torch.save({k: torch.from_numpy(v) for k, v in values.items()}, tmp_path / "x.pth")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("MINDCV_POOLFORMER_CACHE", str(tmp_path / "cache"))
        for name in ("caformer_s18", "caformer_s18_384"):
            place = f"/sail/dl/resolve/main/caformer/{name}.pth"
            server.files[place] = (tmp_path / "x.pth").read_bytes()
        network = mindcv.create_model("caformer_s18_384", pretrained=True)
        assert find_weights(ModelConfig(model="caformer_s18", pretrained=True)).num_classes == 1000
        ranking = classify(pixels, "caformer_s18", top_k=3)
    assert processor_for(network).transform.image_size == 384
    for name, parameter in network.parameters_dict().items():
        if name.startswith("head.fc"):
            assert (parameter.asnumpy() == values[name]).all()
    assert len(ranking) == 3


def test_random_mixing_has_one_size() -> None:
    network = mindcv.create_model("randformer_s12")
    assert processor_for(network).transform.image_size == 224
    network.preprocessing = processor_for(network).transform.to_dict() | {"image_size": 256}
    with pytest.raises(UserError, match="preprocessing: found 256 with model randformer_s12, exp"):
        processor_for(network)


def test_every_fixture_is_recognised_by_names_alone() -> None:
    """Depths, dims[0] and mixers; the whole shapes are compared for those that are read above."""
    from mindcv_poolformer.weights.unwrap import find_network
    from mindcv_poolformer.weights.variant import variant_of

    for variant, shapes in SHAPES.items():
        empty = {name: np.empty(shape, np.float32) for name, shape in shapes.items()}
        source = Source(Path(f"{variant}.pth"), empty, {})
        assert variant_of(find_network(source)[0], source, 1000, None) == variant
        assert variant in VARIANTS
