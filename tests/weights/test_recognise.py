from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mindcv
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from official import OUTPUTS, TIMM_OUTPUTS, official_name, official_weight

from mindcv_poolformer.models import POOLFORMERS, VARIANTS
from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.weights import ModelWeights, load_weights, read_weights, write_weights
from mindcv_poolformer.weights.model_weights import average
from mindcv_poolformer.weights.names import HUGGINGFACE, TIMM, Naming
from mindcv_poolformer.weights.read import Source, read_source
from mindcv_poolformer.weights.recognise import recognise
from mindcv_poolformer.weights.variant import variant_of

MARKS = {"poolformer_s12": (), "poolformer_s24": pytest.mark.long}


def build(weights: ModelWeights, folder: Path) -> ms.nn.Cell:
    """The network that the weights make, by way of a checkpoint."""
    write_weights(weights, folder / "model.ckpt", "ckpt")
    network = mindcv.create_model(
        weights.model,
        num_classes=weights.num_classes,
        in_channels=weights.in_channels,
        head=weights.head,
    )
    load_weights(network, read_weights(folder / "model.ckpt"))
    return network.set_train(False)


def images(*shape: int) -> Tensor:
    return Tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32))


def test_official_weights_give_official_logits(
    official_file: Path, tmp_path: Path, pynative_mode: None
) -> None:
    weights = read_weights(official_file)
    assert str(weights) == (
        "official (sail-sg) poolformer_s12, 1,000 classes, 3 input channels, head norm_pool"
    )
    logits = build(weights, tmp_path)(images(2, 3, 224, 224)).asnumpy()
    np.testing.assert_allclose(logits, OUTPUTS["poolformer_s12/logits"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("naming", [TIMM, HUGGINGFACE])
@pytest.mark.parametrize("variant", POOLFORMERS)
def test_names_and_the_stem_tell_variants_apart(variant: str, naming: Naming) -> None:
    facts = VARIANTS[variant]
    last = [f"network.{2 * stage}.{n - 1}.norm1.beta" for stage, n in enumerate(facts.depths)]
    values = {naming.theirs(name): np.zeros(1) for name in last}
    values[naming.stem] = np.zeros((facts.dims[0], 3, 7, 7))
    assert variant_of(naming, Source(Path("x.pth"), values, {}), 1000, None) == variant


@pytest.mark.parametrize(
    "variant", [pytest.param(name, marks=MARKS.get(name, pytest.mark.rare)) for name in POOLFORMERS]
)
def test_timm_weights_give_timm_logits(variant: str, pynative_mode: None) -> None:
    network = mindcv.create_model(variant, head="pool_norm").set_train(False)
    shapes = {p.name: p.shape for p in network.get_parameters()}
    values = {
        TIMM.theirs(ours): official_weight(TIMM.theirs(ours), shape)
        for ours, shape in shapes.items()
    }
    weights = recognise(Source(Path("timm.safetensors"), values, {}))
    assert (weights.model, weights.origin, weights.head) == (variant, "timm", "pool_norm")
    for parameter in network.get_parameters():
        parameter.set_data(Tensor(weights.values[parameter.name]))
    logits = network(images(2, 3, 64, 64)).asnumpy()
    np.testing.assert_allclose(logits, TIMM_OUTPUTS[f"{variant}/logits"], rtol=0, atol=1e-4)


@pytest.mark.long
def test_timm_weights_do_not_load_under_the_official_head(
    official_file: Path, tmp_path: Path
) -> None:
    timm = replace(read_weights(official_file), head="pool_norm")
    for weights, other in ((timm, "norm_pool"), (replace(timm, head="norm_pool"), "pool_norm")):
        write_weights(weights, tmp_path / "x.ckpt", "ckpt")
        network = mindcv.create_model("poolformer_s12", head=other)
        with pytest.raises(
            UserError, match=f"weights for the head {weights.head}, expected {other}"
        ):
            load_weights(network, read_weights(tmp_path / "x.ckpt"))


@pytest.mark.parametrize("for_people", [True, False])
@pytest.mark.parametrize("form", ["ckpt", "safetensors"])
def test_what_is_written_comes_back(
    official_file: Path, tmp_path: Path, form: str, for_people: bool
) -> None:
    weights = replace(
        read_weights(official_file).with_new_head(3),
        head="pool_norm",
        classes=("ä", "b"),
        preprocessing={"image_size": 32},
        for_people=for_people,
    )
    write_weights(weights, tmp_path / f"x.{form}", form)
    again = read_weights(tmp_path / f"x.{form}")
    assert again.classes == ("ä", "b")
    assert again.folders == (None if for_people else ("ä", "b"))
    assert again.metadata == weights.metadata
    assert again.origin == "MindCV"
    assert list(again.values) == list(weights.values)
    for name, value in weights.values.items():
        assert again.values[name].tobytes() == value.tobytes(), name


def test_a_model_that_mindcv_itself_saves(official_s12: dict, tmp_path: Path) -> None:
    from mindcv.models.poolformer import poolformer_s12

    network = poolformer_s12()
    for parameter in network.get_parameters():
        parameter.set_data(Tensor(official_s12[official_name(parameter.name)]))
    ms.save_checkpoint(network, str(tmp_path / "mindcv.ckpt"))
    weights = read_weights(tmp_path / "mindcv.ckpt")
    assert (weights.origin, weights.head) == ("MindCV", "norm_pool")
    for name, value in weights.values.items():
        assert (value == official_s12[official_name(name)]).all(), name


def test_new_head(official_file: Path) -> None:
    weights = replace(read_weights(official_file), classes=("cat",))
    new = weights.with_new_head(50)
    assert (new.num_classes, new.classes) == (50, ())
    assert new.values["head.weight"].shape == (50, 512)
    assert new.values["head.weight"].std() == pytest.approx(0.02, rel=0.02)
    assert not new.values["head.bias"].any()
    for name, value in weights.values.items():
        assert name.startswith("head.") or new.values[name] is value
    assert (weights.with_new_head(50).values["head.weight"] == new.values["head.weight"]).all()


def test_backbone_without_a_classifier(official_file: Path) -> None:
    source = read_source(official_file)
    for name in ("head.weight", "head.bias"):
        del source.values[name]
    weights = recognise(source)
    assert weights.num_classes == 0
    assert "no classifier" in str(weights)
    assert weights.with_new_head(4).values["head.weight"].shape == (4, 512)


def test_misfits_are_named_as_the_file_names_them(official_file: Path) -> None:
    source = read_source(official_file)
    values = source.values
    del values["network.0.1.norm2.weight"]
    values["network.6.0.mlp.fc1.bias"] = np.zeros(3, np.float32)
    values["aux.bias"] = np.zeros(3, np.float32)
    with pytest.raises(UserError) as error:
        recognise(source)
    for said in (
        "3 parameters do not fit the model",
        "network.0.1.norm2.weight is missing",
        "network.6.0.mlp.fc1.bias found (3,), expected (2048,)",
        "aux.bias is not in the model",
    ):
        assert said in str(error.value)
    for name in [name for name in values if "layer_scale" in name]:
        del values[name]
    with pytest.raises(UserError, match="27 parameters do not fit.*; and 17 more") as error:
        recognise(source)
    assert str(error.value).count(";") == 10


@pytest.mark.parametrize("name", ["head.weight", "head.bias"])
def test_half_a_classifier(official_file: Path, name: str) -> None:
    source = read_source(official_file)
    del source.values[name]
    with pytest.raises(UserError, match="1 parameter does not fit"):
        recognise(source)


def test_nobodys_weights(official_file: Path) -> None:
    source = read_source(official_file)
    with pytest.raises(UserError, match=r"named conv, expected those .* MindCV, official .*, timm"):
        recognise(Source(source.path, {"conv": np.zeros(3, np.float32)}, {}))
    with pytest.raises(UserError, match="found parameters named nothing"):
        recognise(Source(source.path, {}, {}))
    fewer = {k: v for k, v in source.values.items() if not k.startswith("network.4.5.")}
    with pytest.raises(UserError, match=r"depths \(2, 2, 5, 2\) and a stem of 64 channels"):
        recognise(Source(source.path, fewer, {}))
    flat = source.values | {"patch_embed.proj.weight": np.zeros(3, np.float32)}
    with pytest.raises(UserError, match=r"patch_embed.proj.weight \(3,\), expected"):
        recognise(Source(source.path, flat, {}))
    with pytest.raises(UserError, match="found the head 'pool', expected norm_pool or pool_norm"):
        recognise(Source(source.path, source.values, {"head": "pool"}))


def test_average(official_file: Path) -> None:
    first = read_weights(official_file)
    rng = np.random.default_rng(7)
    paths = [Path("a"), Path("b"), Path("c")]
    several = {
        path: replace(
            first,
            values={
                k: rng.standard_normal(v.shape).astype(np.float32) for k, v in first.values.items()
            },
        )
        for path in paths
    }
    mean = average(several)
    assert mean.metadata == first.metadata
    for name in ("patch_embed.proj.weight", "network.4.2.layer_scale_1", "head.bias"):
        a, b, c = (several[path].values[name].astype(np.float64) for path in paths)
        assert mean.values[name].dtype == np.float32
        assert (mean.values[name] == ((a + b + c) / 3).astype(np.float32)).all()


def test_average_of_different_models(official_file: Path) -> None:
    first = read_weights(official_file)
    for key, other in {
        "head": replace(first, head="pool_norm"),
        "num_classes": first.with_new_head(3),
        "classes": replace(first, classes=("cat",)),
    }.items():
        with pytest.raises(UserError, match=f"b: found {key} .* as in a"):
            average({Path("a"): first, Path("b"): other})
