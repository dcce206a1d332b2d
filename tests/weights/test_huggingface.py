"""Side by side with transformers' own PoolFormer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mindcv
import numpy as np
import pytest
from mindspore import Tensor
from official import official_weight
from PIL import Image

from mindcv_poolformer.data.preprocess import EvalTransform
from mindcv_poolformer.models import POOLFORMERS, VARIANTS
from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.weights import read_weights, write_weights
from mindcv_poolformer.weights.names import HUGGINGFACE

pytestmark = pytest.mark.long
SMALLEST = ("poolformer_s12", "poolformer_s24")

torch = pytest.importorskip("torch", reason="needs torch to compare with")
transformers = pytest.importorskip("transformers", reason="needs transformers to compare with")


def their_model(variant: str, **settings: Any) -> Any:
    """A PoolFormerForImageClassification with the weights that its parameters' names rebuild."""
    facts = VARIANTS[variant]
    config = transformers.PoolFormerConfig(
        depths=list(facts.depths), hidden_sizes=list(facts.dims), **settings
    )
    model = transformers.PoolFormerForImageClassification(config).eval()
    values = {
        name: torch.tensor(official_weight(name, tuple(value.shape)))
        for name, value in model.state_dict().items()
    }
    model.load_state_dict(values)
    return model


def run(model: Any, images: np.ndarray) -> Any:
    with torch.no_grad():
        return model(torch.from_numpy(images), output_hidden_states=True)


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(name, marks=() if name in SMALLEST else pytest.mark.rare)
        for name in POOLFORMERS
    ],
)
def test_there_and_back(variant: str, tmp_path: Path, pynative_mode: None) -> None:
    theirs = their_model(variant, num_labels=7)
    theirs.save_pretrained(tmp_path / "theirs")
    weights = read_weights(tmp_path / "theirs")
    assert str(weights) == (f"Hugging Face {variant}, 7 classes, 3 input channels, head norm_pool")

    ours = mindcv.create_model(variant, num_classes=7).set_train(False)
    for parameter in ours.get_parameters():
        parameter.set_data(Tensor(weights.values[parameter.name]))
    images = np.random.default_rng(2).standard_normal((2, 3, 64, 96)).astype(np.float32)
    expected = run(theirs, images)
    logits = ours(Tensor(images)).asnumpy()
    np.testing.assert_allclose(logits, expected.logits.numpy(), rtol=0, atol=1e-4)
    stages = ours.stage_maps(Tensor(images))
    for stage, hidden in zip(stages, expected.hidden_states, strict=True):
        np.testing.assert_allclose(stage.asnumpy(), hidden.numpy(), rtol=0, atol=1e-4)

    write_weights(weights, tmp_path / "ours", "hf")
    again = transformers.PoolFormerForImageClassification.from_pretrained(tmp_path / "ours")
    before, after = theirs.state_dict(), again.state_dict()
    assert after.keys() == before.keys()
    for name, value in before.items():
        assert torch.equal(after[name], value), name
    assert torch.equal(run(again.eval(), images).logits, expected.logits)
    assert again.config.id2label == theirs.config.id2label


def test_what_save_pretrained_writes(tmp_path: Path) -> None:
    theirs = their_model("poolformer_s12", num_labels=7)
    theirs.save_pretrained(tmp_path / "whole")
    whole = read_weights(tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "several", max_shard_size="5MB")
    assert len(list((tmp_path / "several").glob("*.safetensors"))) > 2
    several = read_weights(tmp_path / "several")
    assert (several.classes, several.values.keys()) == (whole.classes, whole.values.keys())
    theirs.poolformer.config.id2label = {0: "cat", 1: "dog"}  # a base model tells labels too
    theirs.poolformer.save_pretrained(tmp_path / "base")
    base = read_weights(tmp_path / "base")
    assert (base.num_classes, base.classes) == (0, ())
    assert base.note == "it has no norm behind its stages, which is new"
    norm = ("norm.gamma", "norm.beta")
    assert base.values.keys() == whole.values.keys() - whole.classifier
    for name, value in whole.values.items():
        np.testing.assert_array_equal(several.values[name], value)
        if name not in {*whole.classifier, *norm}:
            np.testing.assert_array_equal(base.values[name], value)
    assert [set(base.values[name].tolist()) for name in norm] == [{1.0}, {0.0}]
    assert base.with_new_head(3).values["head.weight"].shape == (3, 512)
    halves = their_model("poolformer_s12", num_labels=7).bfloat16()
    halves.save_pretrained(tmp_path / "bf16")
    state = halves.float().state_dict()
    for name, value in read_weights(tmp_path / "bf16").values.items():
        np.testing.assert_array_equal(value, state[HUGGINGFACE.theirs(name)].numpy())


def test_labels_travel(tmp_path: Path) -> None:
    theirs = their_model(
        "poolformer_s12", num_labels=3, id2label={0: "chat", 1: "chien", 2: "zèbre"}
    )
    theirs.save_pretrained(tmp_path / "theirs")
    weights = read_weights(tmp_path / "theirs" / "model.safetensors")
    assert weights.classes == ("chat", "chien", "zèbre")
    write_weights(weights, tmp_path / "ours", "hf")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "ours")
    assert config.id2label == {0: "chat", 1: "chien", 2: "zèbre"}
    assert config.label2id == {"chat": 0, "chien": 1, "zèbre": 2}
    assert config.num_labels == 3

    fewer = replace(weights, classes=("chat",))  # a recipe can ask for more classes than folders
    write_weights(fewer, tmp_path / "fewer", "hf")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "fewer")
    assert config.id2label == {0: "chat", 1: "LABEL_1", 2: "LABEL_2"}
    assert read_weights(tmp_path / "fewer").classes == ("chat",)


def test_other_channels_and_preprocessing(tmp_path: Path) -> None:
    theirs = their_model("poolformer_s12", num_labels=2, num_channels=1)
    theirs.save_pretrained(tmp_path / "theirs")
    weights = read_weights(tmp_path / "theirs")
    assert (weights.in_channels, weights.num_classes) == (1, 2)
    with pytest.raises(UserError, match=r"preprocessing: found none for 1 input channel\b"):
        write_weights(weights, tmp_path / "ours", "hf")
    assert not (tmp_path / "ours").exists()
    transform = EvalTransform(32, 1.0, "bilinear", (40.0,), (80.0,))
    write_weights(replace(weights, preprocessing=transform.to_dict()), tmp_path / "ours", "hf")
    again = transformers.PoolFormerForImageClassification.from_pretrained(tmp_path / "ours")
    assert again.config.num_channels == 1
    written = json.loads((tmp_path / "ours" / "preprocessor_config.json").read_text())
    assert written["image_mean"] == [pytest.approx(40 / 255)]
    assert written["image_std"] == [pytest.approx(80 / 255)]
    assert (written["size"], written["resample"]) == ({"shortest_edge": 32}, 2)
    read = EvalTransform.from_dict(read_weights(tmp_path / "ours").preprocessing)
    assert (read.image_size, read.crop_pct, read.interpolation) == (32, 1.0, "bilinear")
    assert (*read.mean, *read.std) == (40.0, 80.0)  # a recipe's own are compared with them


@pytest.mark.parametrize("variant", ["poolformer_s12", "poolformer_m36"])
def test_their_processor_prepares_images_as_ours(variant: str, tmp_path: Path) -> None:
    from mindcv_poolformer.models import default_cfgs
    from mindcv_poolformer.weights.huggingface import preprocessor_config

    content = json.dumps(preprocessor_config(variant, 3, None))
    (tmp_path / "preprocessor_config.json").write_text(content)
    processor = transformers.PoolFormerImageProcessorPil.from_pretrained(tmp_path)
    cfg = default_cfgs[variant]
    mean, std = (tuple(255 * v for v in cfg[key]) for key in ("mean", "std"))
    transform = EvalTransform(224, VARIANTS[variant].crop_pct, "bicubic", mean, std)
    pixels = np.random.default_rng(4).integers(0, 256, (300, 401, 3), np.uint8)
    theirs = processor(Image.fromarray(pixels), return_tensors="np")["pixel_values"][0]
    ours = transform(Image.fromarray(pixels))
    scale = np.array(std).reshape(3, 1, 1) / 255
    assert np.abs((ours - theirs) * scale).max() <= 1 / 255


def test_preprocessing_in_files_of_others(tmp_path: Path) -> None:
    from mindcv_poolformer.weights.huggingface import read_preprocessing

    assert read_preprocessing(tmp_path) is None
    path = tmp_path / "preprocessor_config.json"
    transformers.PoolFormerImageProcessorPil(crop_pct=0.95).save_pretrained(tmp_path)
    assert json.loads(path.read_text())["crop_pct"] == 0.95
    found = EvalTransform.from_dict(read_preprocessing(tmp_path))
    assert (found.image_size, found.crop_pct, found.interpolation) == (224, 0.95, "bicubic")
    assert found.mean == pytest.approx((123.675, 116.28, 103.53))
    assert found.std == pytest.approx((58.395, 57.12, 57.375))

    path.write_text('{"size": 224, "crop_pct": 0.9, "image_mean": [0.5, 0.5, 0.5], "resample": 2}')
    older = EvalTransform.from_dict(read_preprocessing(tmp_path))
    assert (older.image_size, older.interpolation, older.mean[0]) == (224, "bilinear", 127.5)
    for text, said in [
        ('{"do_center_crop": false}', "found do_center_crop False, expected True"),
        ('{"rescale_factor": 1}', "found rescale_factor 1, expected"),
        ('{"size": 384}', "found size 384 and crop_size .*, expected one edge"),
        ('{"resample": 0}', "found no preprocessing of a PoolFormer"),
        ('{"size": "big"}', "found no preprocessing of a PoolFormer"),
        ("[]", "found no preprocessing of a PoolFormer"),
        ("{", "found no preprocessing of a PoolFormer"),
    ]:
        path.write_text(text)
        with pytest.raises(UserError, match=f"preprocessor_config.json: {said}") as raised:
            read_preprocessing(tmp_path)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("key", "value"), [("pool_size", 5), ("hidden_act", "relu"), ("strides", [4, 2, 2, 1])]
)
def test_another_network_with_the_same_shapes(tmp_path: Path, key: str, value: Any) -> None:
    their_model("poolformer_s12", num_labels=2).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(UserError, match=f"config.json: found {key} .*, expected"):
        read_weights(tmp_path)


def test_no_config(tmp_path: Path) -> None:
    their_model("poolformer_s12", num_labels=2).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for text, said in [
        ("{", "found no readable file"),
        (json.dumps(config | {"id2label": {"0": "a"}}), "found 1 label, expected .* 2 classes"),
    ]:
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(UserError, match=said):
            read_weights(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match="config.json: found no readable file"):
        read_weights(tmp_path)
