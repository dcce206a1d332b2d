"""Weights of segmentation models: MMSegmentation's and ours, whole and their backbones alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import mindcv
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from official import FIXTURES, load_official_weights, official_name, official_weight
from safetensors.numpy import load_file, save_file

from mindcv_poolformer import load_model
from mindcv_poolformer.config import ModelConfig
from mindcv_poolformer.models import SemanticFPN, StagedClassifier
from mindcv_poolformer.runtime.checkpoint_file import read_checkpoint, save_checkpoint
from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.weights import (
    ModelWeights,
    find_weights,
    load_weights,
    read_weights,
    save_weights,
    start_from,
    write_weights,
)
from mindcv_poolformer.weights.names import OPENMMLAB
from mindcv_poolformer.weights.read import Source
from mindcv_poolformer.weights.recognise import recognise
from mindcv_poolformer.weights.variant import variant_of

SHAPES = json.loads((FIXTURES / "dense" / "official_state_dict_shapes.json").read_text())
WIDTHS = {"neck_channels": 8, "head_channels": 4}
CLASSES = ("bed", "sea", "sky")
PALETTE = ((204, 5, 255), (9, 7, 230), (6, 230, 230))
SCENES = {
    "img_scale": [256, 64],
    "size_divisor": 32,
    "mean": [51.0] * 3,
    "std": [102.0] * 3,
    "pixel_range": [0, 255],
}
COUNTERS = ".num_batches_tracked"


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch", reason="these checkpoints are PyTorch's")


def tiny(name: str, **settings: Any) -> SemanticFPN:
    return mindcv.create_model(name, **{"num_classes": 3, **WIDTHS, **settings})


def classifier(**settings: Any) -> StagedClassifier:
    return mindcv.create_model("poolformer_tiny", **{"num_classes": 5, **settings})


def values_of(network: ms.nn.Cell) -> dict[str, np.ndarray]:
    return {p.name: p.asnumpy() for p in network.get_parameters()}


@cache
def official_values(name: str) -> dict[str, np.ndarray]:
    """The state dict of MMSegmentation's, with its counters. Not to be changed."""
    shapes = {official_name(p.name): p.shape for p in tiny(name).get_parameters()}
    values = {name: official_weight(name, shape) for name, shape in shapes.items()}
    means = [name for name in shapes if name.endswith(".running_mean")]
    assert len(means) == 7
    return values | {m.replace(".running_mean", COUNTERS): np.array(40_000) for m in means}


@cache
def our_values(name: str) -> dict[str, np.ndarray]:
    """The same by our names. Not to be changed."""
    return values_of(load_official_weights(tiny(name)))


def assert_same(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.fixture(scope="module")
def checkpoint(tiny_segmenter: str, torch: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As MMSegmentation's training leaves it."""
    state = {k: torch.tensor(v) for k, v in official_values(tiny_segmenter).items()}
    content = {
        "meta": {
            "mmseg_version": "0.19.0",
            "CLASSES": ("bed ", "sea", "sky"),
            "PALETTE": [list(colour) for colour in PALETTE],
        },
        "state_dict": state,
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []},
    }
    path = tmp_path_factory.mktemp("openmmlab") / "iter_40000.pth"
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def weights(tiny_segmenter: str) -> ModelWeights:
    """Those of a run."""
    metadata = {
        "model": tiny_segmenter,
        "task": "segmentation",
        "num_classes": 3,
        "in_channels": 3,
        "classes": list(CLASSES),
        "palette": [list(colour) for colour in PALETTE],
        "reduce_zero_label": False,
        "preprocessing": SCENES,
    }
    found = recognise(Source(Path("best.ckpt"), our_values(tiny_segmenter), metadata))
    assert found.metadata == metadata
    return found


@pytest.fixture(scope="module")
def of_classifier(tiny_segmenter: str) -> ModelWeights:
    """Those of a classifier with the same backbone."""
    values = values_of(load_official_weights(classifier()))
    metadata = {"classes": list("vwxyz"), "preprocessing": {"image_size": 32}}
    return recognise(Source(Path("c.ckpt"), values, metadata))


Command = Callable[..., str]


def test_what_training_of_mmsegmentation_leaves(tiny_segmenter: str, checkpoint: Path) -> None:
    weights = read_weights(checkpoint)
    assert_same(weights.values, our_values(tiny_segmenter))
    assert str(weights) == (
        f"MMSegmentation {tiny_segmenter}, 3 classes, 3 input channels; taken is state_dict; "
        "left out: optimizer"
    )
    assert (weights.classes, weights.palette) == (CLASSES, PALETTE)
    assert weights.reduce_zero_label is None
    network = mindcv.create_model(weights.model, **weights.settings)
    load_weights(network, weights)
    assert_same(values_of(network), weights.values)
    assert (network.classes, network.palette) == (CLASSES, PALETTE)
    assert network.preprocessing == {
        "img_scale": [2048, 512],
        "size_divisor": 32,
        "mean": [123.675, 116.28, 103.53],
        "std": [58.395, 57.12, 57.375],
        "pixel_range": [0, 255],
    }


@pytest.mark.parametrize("prefix", ["module.", "model.module.", "teacher."])
def test_what_wraps_a_segmenter(tiny_segmenter: str, prefix: str) -> None:
    values = {prefix + k: v for k, v in official_values(tiny_segmenter).items()}
    values["n_averaged"] = np.array(3)
    weights = recognise(Source(Path("x.pth"), values, {}, "state_dict_ema"))
    assert_same(weights.values, our_values(tiny_segmenter))
    assert f"without {prefix}" in weights.note


def test_averages_beside_the_weights(tiny_segmenter: str) -> None:
    values = official_values(tiny_segmenter)
    averages = {f"ema_{name.replace('.', '_')}": value + 1 for name, value in values.items()}
    source = Source(Path("x.pth"), values | averages, {}, "state_dict", ("meta",))
    weights = recognise(source)
    assert_same(weights.values, our_values(tiny_segmenter))
    assert weights.note == "taken is state_dict; left out: ema_*"
    with pytest.raises(UserError, match="1 parameter does not fit the model: ema_of_nothing is"):
        recognise(replace(source, values=values | {"ema_of_nothing": np.ones(2, np.float32)}))


def test_classes_as_newer_versions_tell_them(tiny_segmenter: str) -> None:
    told = {"classes": CLASSES, "palette": [list(colour) for colour in PALETTE]}
    values = official_values(tiny_segmenter)
    for meta, expected in (
        ({"dataset_meta": told}, (CLASSES, PALETTE)),
        ({"CLASSES": list(CLASSES), "PALETTE": np.zeros((3, 3))}, (CLASSES, ())),
        ({"CLASSES": None, "PALETTE": [[0, 0, 256]]}, ((), ())),
    ):
        weights = recognise(Source(Path("x.pth"), values, {}, "state_dict", meta=meta))
        assert (weights.classes, weights.palette) == expected
    too_many = {"CLASSES": (*CLASSES, "more")}
    with pytest.raises(UserError, match="^x.pth: found 4 class names, expected at most 3"):
        recognise(Source(Path("x.pth"), values, {}, "state_dict", meta=too_many))


def test_an_official_checkpoint_there_and_back(tmp_path: Path, torch: Any) -> None:
    name = "semantic_fpn_poolformer_s12"
    shapes = {key: tuple(shape) for key, shape in SHAPES[name].items()}
    values = {
        key: np.array(7) if key.endswith(COUNTERS) else official_weight(key, shape)
        for key, shape in shapes.items()
    }
    weights = recognise(Source(Path("fpn_poolformer_s12_ade20k_40k.pth"), values, {}))
    assert (weights.model, weights.num_classes, weights.in_channels) == (name, 150, 3)
    assert (weights.classes[0], weights.classes[7], weights.classes[149]) == ("wall", "bed", "flag")
    assert (weights.palette[0], weights.palette[149]) == ((120, 120, 120), (92, 0, 255))
    assert weights.reduce_zero_label is True
    write_weights(weights, tmp_path / "x.pth", "openmmlab")
    content = torch.load(tmp_path / "x.pth", weights_only=True)
    state = content["state_dict"]
    assert {key: tuple(value.shape) for key, value in state.items()} == shapes
    for key, value in state.items():
        if key.endswith(COUNTERS):
            assert value.dtype == torch.int64 and value == 0
        else:
            assert value.dtype == torch.float32
            np.testing.assert_array_equal(value.numpy(), values[key])
    assert content["meta"]["CLASSES"] == weights.classes
    assert content["meta"]["PALETTE"][149] == [92, 0, 255]


@pytest.mark.parametrize("name", SHAPES)
def test_names_and_shapes_tell_official_models_apart(name: str) -> None:
    nothing = np.float32(0)
    values = {key: np.broadcast_to(nothing, shape) for key, shape in SHAPES[name].items()}
    source = Source(Path("latest.pth"), values, {})
    assert variant_of(OPENMMLAB[0], source, 150, None) == name


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"asked": "semantic_fpn_poolformerv2_s12"}, "semantic_fpn_poolformerv2_s12"),
        ({"asked": "identityformer_s12"}, "semantic_fpn_identityformer_s12"),
        ({"path": "semantic_fpn_poolformerv2_s12.pth"}, "semantic_fpn_poolformerv2_s12"),
        ({"model": "semantic_fpn_identityformer_s12"}, "semantic_fpn_identityformer_s12"),
        ({}, None),
    ],
)
def test_backbones_that_share_a_network(told: dict, expected: str | None) -> None:
    naming = OPENMMLAB[1]
    blocks = {0: 2, 1: 2, 2: 6, 3: 2}
    names = [f"backbone.stages.{stage}.{n - 1}.norm1.weight" for stage, n in blocks.items()]
    values = {name: np.zeros(1) for name in names} | {naming.stem: np.zeros((64, 3, 7, 7))}
    metadata = {"model": told["model"]} if "model" in told else {}
    source = Source(Path(told.get("path", "x.pth")), values, metadata)
    if expected:
        assert variant_of(naming, source, 150, told.get("asked")) == expected
        return
    both = "semantic_fpn_identityformer_s12 and semantic_fpn_poolformerv2_s12 have alike"
    with pytest.raises(UserError, match=both):
        variant_of(naming, source, 150, None)


def test_convert_both_ways(
    command: Command, tiny_segmenter: str, checkpoint: Path, weights: ModelWeights, torch: Any
) -> None:
    printed = command("convert", checkpoint, "ours.ckpt")
    count = sum(v.size for n, v in weights.values.items() if "moving" not in n)
    assert f"written as ckpt, {count:,} parameters\n" in printed
    assert read_checkpoint("ours.ckpt").metadata == {
        "model": tiny_segmenter,
        "task": "segmentation",
        "num_classes": 3,
        "in_channels": 3,
        "classes": list(CLASSES),
        "palette": [list(colour) for colour in PALETTE],
    }
    write_weights(weights, Path("run.ckpt"), "ckpt")
    command("convert", "run.ckpt", "theirs.pth")
    command("convert", "run.ckpt", "theirs.safetensors", "--to", "openmmlab")
    command("convert", "run.ckpt", "ours.safetensors")
    official = official_values(tiny_segmenter)
    for found in (
        torch.load("theirs.pth", weights_only=True)["state_dict"],
        load_file("theirs.safetensors"),
    ):
        assert found.keys() == official.keys()
        assert {str(v.dtype).split(".")[-1] for k, v in found.items() if COUNTERS in k} == {"int64"}
        for name, value in official.items():
            np.testing.assert_array_equal(found[name], 0 if COUNTERS in name else value)
    for path in ("theirs.pth", "theirs.safetensors", "ours.safetensors", "run.ckpt"):
        again = read_weights(path)
        assert_same(again.values, weights.values)
        assert again.metadata == weights.metadata, path


def test_convert_a_part_and_for_other_classes(
    command: Command, checkpoint: Path, weights: ModelWeights, of_classifier: ModelWeights
) -> None:
    printed = command("convert", checkpoint, "c.ckpt", "--part", "backbone", "--num_classes", "7")
    assert (
        "c.ckpt: the backbone of it, a poolformer_tiny, and the norm before its head is" in printed
    )
    assert "c.ckpt: the head is new and untrained, for 7 classes; the backbone is kept" in printed
    network = classifier(num_classes=7)
    load_weights(network, read_weights("c.ckpt"))
    found = values_of(network)
    new = {"norm.gamma": 1, "norm.beta": 0, "head.bias": 0}
    for name, value in found.items():
        if name in new:
            assert (value == new[name]).all()
        elif name != "head.weight":
            np.testing.assert_array_equal(value, weights.values[f"backbone.{name}"])
    write_weights(of_classifier, Path("whole.ckpt"), "ckpt")
    command("convert", "whole.ckpt", "alone.safetensors", "--part", "backbone")
    alone = read_weights("alone.safetensors")
    kept = {n: v for n, v in of_classifier.values.items() if "head." not in n}
    assert_same(alone.values, kept)
    assert (alone.num_classes, alone.classes) == (0, ())
    printed = command("convert", checkpoint, "more.ckpt", "--num_classes", "40")
    assert (
        "more.ckpt: the head's last layer is new and untrained, for 40 classes; all before it"
        in (printed)
    )
    more = read_weights("more.ckpt")
    assert more.classes == more.palette == ()
    last = "decode_head.conv_seg"
    assert more.values[f"{last}.weight"].shape == (40, 4, 1, 1)
    assert more.values[f"{last}.weight"].std() == pytest.approx(0.01, rel=0.2)
    for name, value in weights.values.items():
        if not name.startswith(last):
            np.testing.assert_array_equal(more.values[name], value)


def test_the_average_of_a_run(command: Command, tmp_path: Path, weights: ModelWeights) -> None:
    tensors = {name: Tensor(value) for name, value in weights.values.items()}
    averages = {f"ema.{n}": Tensor(-v) for n, v in weights.values.items() if "moving" not in n}
    save_checkpoint(tmp_path / "last.ckpt", tensors, weights.metadata, averages)
    command("extract_ema", "last.ckpt", "ema.ckpt")
    ema = read_weights("ema.ckpt")
    assert ema.metadata == weights.metadata
    for name, value in weights.values.items():
        np.testing.assert_array_equal(ema.values[name], value if "moving" in name else -value)


def test_a_segmenter_is_saved_with_all_that_it_knows(
    tmp_path: Path, tiny_segmenter: str, weights: ModelWeights
) -> None:
    network = tiny(tiny_segmenter)
    load_weights(network, weights)
    save_weights(network, tmp_path / "x.safetensors")
    again = read_weights(tmp_path / "x.safetensors")
    assert_same(again.values, weights.values)
    assert again.metadata == weights.metadata and again.reduce_zero_label is not None
    with pytest.raises(
        UserError, match="hub: found weights of a semantic_fpn.*, expected those of a P"
    ):
        save_weights(network, tmp_path / "hub")


def test_a_segmenter_starts_from_a_classifier(
    tiny_segmenter: str, of_classifier: ModelWeights
) -> None:
    network = load_official_weights(tiny(tiny_segmenter))
    before = values_of(network)
    marked = {name: value + 1 for name, value in of_classifier.values.items()}
    line = start_from(network, replace(of_classifier, values=marked), CLASSES)
    assert line == (
        "starting from c.ckpt: MindCV poolformer_tiny, 5 classes, 3 input channels, head "
        "norm_pool; its backbone is taken, without norm and head; the norms of its maps, neck and "
        "head are new and untrained, for 3 classes"
    )
    for name, value in values_of(network).items():
        expected = marked.get(name.removeprefix("backbone."), before[name])
        np.testing.assert_array_equal(value, expected, err_msg=name)
    taken = {f"backbone.{n}" for n in marked if not n.startswith(("norm.", "head."))}
    assert taken < before.keys()
    assert (network.classes, network.palette) == (CLASSES, ())
    assert network.preprocessing["img_scale"] == [2048, 512]
    grey = tiny(tiny_segmenter, in_channels=1)
    with pytest.raises(UserError, match="backbone.patch_embed.proj.weight found"):
        start_from(grey, of_classifier)
    assert "adapted to 1 input channel;" in start_from(grey, of_classifier, any_channels=True)


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (CLASSES, ""),
        (None, ""),
        (("bed", "sky", "sea"), "for 3 classes, whose order is another: class 1 is sea in the"),
        (
            ("bed", "sea", "land"),
            "for 3 classes: class 2 is sky in the weights, land in the images",
        ),
        (("bed", "sea", "sky", "sand"), "for 4 classes"),
    ],
)
def test_a_segmenter_starts_from_a_segmenter(
    tiny_segmenter: str, weights: ModelWeights, classes: tuple[str, ...] | None, said: str
) -> None:
    network = tiny(tiny_segmenter, num_classes=len(classes or CLASSES))
    before = values_of(network)
    line = start_from(network, weights, classes)
    assert network.preprocessing == SCENES
    new = "; the head's last layer is new and untrained, for "
    assert said in line and (new in line) == bool(said)
    assert network.classes == (classes or CLASSES)
    assert network.palette == (() if said else PALETTE)
    for name, value in values_of(network).items():
        fresh = said and name.startswith("decode_head.conv_seg.")
        np.testing.assert_array_equal(value, (before if fresh else weights.values)[name])


def test_a_classifier_starts_from_a_segmenter(weights: ModelWeights) -> None:
    network = classifier()
    before = values_of(network)
    line = start_from(network, weights, tuple("vwxyz"))
    assert line.endswith(
        "; its backbone is taken, and the norm before the head is new; the head is new and "
        "untrained, for 5 classes"
    )
    for name, value in values_of(network).items():
        new = name.startswith(("norm.", "head."))
        expected = before[name] if new else weights.values[f"backbone.{name}"]
        np.testing.assert_array_equal(value, expected)
    assert network.classes == tuple("vwxyz")
    assert network.preprocessing["image_size"] == 224
    maps = classifier(features_only=True)
    assert "the norms of the maps are new" in start_from(maps, weights)
    pools_first = classifier(head="pool_norm")
    start_from(pools_first, weights)
    stem = "patch_embed.proj.weight"
    for other in (maps, pools_first):
        np.testing.assert_array_equal(values_of(other)[stem], weights.values[f"backbone.{stem}"])


def test_what_a_recipe_can_name(
    tmp_path: Path, tiny_segmenter: str, weights: ModelWeights, of_classifier: ModelWeights
) -> None:
    segmenter, other = tmp_path / "s.ckpt", tmp_path / "c.ckpt"
    write_weights(weights, segmenter, "ckpt")
    write_weights(of_classifier, other, "ckpt")
    for model in (tiny_segmenter, "poolformer_tiny"):
        for path in (segmenter, other):
            assert find_weights(ModelConfig(model=model, ckpt_path=str(path))).path == path
    assert find_weights(ModelConfig(model=tiny_segmenter), segmenter).path == segmenter
    for model, path, said in (
        (tiny_segmenter, other, "c.ckpt: found weights of poolformer_tiny, a classifier, expected"),
        (
            "poolformer_tiny",
            segmenter,
            "s.ckpt: found weights of semantic_fpn_poolformer_tiny, a s",
        ),
    ):
        with pytest.raises(UserError, match=said):
            find_weights(ModelConfig(model=model), path)
    s12 = "semantic_fpn_poolformer_s12"
    for model, path, said in (
        (s12, segmenter, f"model: found {s12} for .*s.ckpt, expected its {tiny_segmenter}$"),
        (
            s12,
            other,
            f"model: found {s12} for .*c.ckpt, a poolformer_tiny, expected one with the s",
        ),
        ("semantic_fpn_poolformer", other, "model: found 'semantic_fpn_poolformer', expected one"),
    ):
        with pytest.raises(UserError, match=said):
            find_weights(ModelConfig(model=model, ckpt_path=str(path)))


def test_tasks_are_not_mixed_up(
    tmp_path: Path, command: Command, tiny_segmenter: str, weights: ModelWeights, of_classifier: Any
) -> None:
    with pytest.raises(UserError, match="c.ckpt: found weights of poolformer_tiny, a classifier"):
        load_weights(tiny(tiny_segmenter), of_classifier)
    with pytest.raises(
        UserError, match="best.ckpt: found weights of semantic_fpn.*, a segmentation"
    ):
        load_weights(classifier(), weights)
    write_weights(weights, tmp_path / "s.ckpt", "ckpt")
    with pytest.raises(
        UserError, match="s.ckpt: found weights of .*expected those of a classifier"
    ):
        load_model(tmp_path / "s.ckpt")
    with pytest.raises(UserError, match="expected poolformer_tiny; --part backbone gives a class"):
        command("convert", tmp_path / "s.ckpt", "x.ckpt", "--model", "poolformer_tiny")
    (tmp_path / "s.ckpt").unlink()
    write_weights(of_classifier, tmp_path / "c.ckpt", "ckpt")
    with pytest.raises(
        UserError, match="x.pth: found weights of poolformer_tiny, a classifier, exp"
    ):
        command("convert", tmp_path / "c.ckpt", "x.pth")
    with pytest.raises(UserError, match="x.ckpt: found '.ckpt', expected .pth or .safetensors"):
        command("convert", tmp_path / "c.ckpt", "x.ckpt", "--to", "openmmlab")
    with pytest.raises(UserError, match=f"found poolformer_tiny, expected {tiny_segmenter}"):
        command("convert", tmp_path / "c.ckpt", "x.ckpt", "--model", tiny_segmenter)
    assert [path.name for path in tmp_path.iterdir()] == ["c.ckpt"]


def test_other_heads_on_the_same_backbone(tmp_path: Path, tiny_segmenter: str) -> None:
    values = official_values(tiny_segmenter)
    missing = {k: v for k, v in values.items() if "scale_heads.3.4.conv" not in k}
    with pytest.raises(UserError, match="1 parameter does not fit .*3.4.conv.weight is missing$"):
        recognise(Source(Path("x.pth"), missing, {}))
    other = {k: v for k, v in values.items() if "neck" not in k and "scale_heads" not in k}
    other["decode_head.psp_modules.0.1.conv.weight"] = np.zeros((4, 40, 1, 1), np.float32)
    save_file(other, tmp_path / "upernet.safetensors")
    with pytest.raises(
        UserError, match="upernet.safetensors: [0-9]+ parameters do not fit the mod"
    ):
        read_weights(tmp_path / "upernet.safetensors")
    nothing = values | {"decode_head.conv_seg.weight": np.zeros((0, 4, 1, 1), np.float32)}
    with pytest.raises(UserError, match="decode_head.conv_seg.weight found .0, 4, 1, 1., expected"):
        recognise(Source(Path("x.pth"), nothing, {}))
