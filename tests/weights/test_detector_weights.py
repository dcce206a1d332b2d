"""Weights of detectors: MMDetection's and ours, whole and their backbones alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import mindcv
import numpy as np
import pytest
from official import load_official_weights, official_name, official_weight
from official_dense import DETECTOR_SHAPES

from mindcv_poolformer.config import ModelConfig, parse_recipe
from mindcv_poolformer.data.detection.transforms import official_test
from mindcv_poolformer.models import MaskRCNN, RetinaNet
from mindcv_poolformer.runtime.checkpoint_file import read_checkpoint
from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.tasks.validating_pictures import limits_note
from mindcv_poolformer.weights import (
    ModelWeights,
    find_weights,
    load_weights,
    read_weights,
    save_weights,
    start_from,
    write_weights,
)
from mindcv_poolformer.weights.__main__ import main
from mindcv_poolformer.weights.names import OPENMMLAB
from mindcv_poolformer.weights.read import Source
from mindcv_poolformer.weights.recognise import recognise
from mindcv_poolformer.weights.variant import variant_of

CONFIGS = Path(__file__).parents[2] / "configs"
RETINANET, MASK_RCNN = "retinanet_poolformer_tiny", "mask_rcnn_poolformer_tiny"
BOTH = (RETINANET, MASK_RCNN)
CLASSES = ("disc", "bar", "ring")
CATEGORY_IDS = (7, 2, 90)
PREPROCESSING = official_test((64, 48)).to_dict()
WIDTHS = {RETINANET: {"channels": 8, "stacked_convs": 3}, MASK_RCNN: {"channels": 8}}
# What is new for other classes.
LAST = {
    RETINANET: ("bbox_head.retina_cls.",),
    MASK_RCNN: (
        "roi_head.bbox_head.fc_cls.",
        "roi_head.bbox_head.fc_reg.",
        "roi_head.mask_head.conv_logits.",
    ),
}


@pytest.fixture(autouse=True, scope="module")
def known(tiny_segmenter: str) -> Iterator[None]:
    """The models on a tiny backbone, which are forgotten with it."""
    yield
    values_of_official.cache_clear()


def tiny(name: str, num_classes: int = 3, **settings: Any) -> RetinaNet | MaskRCNN:
    return mindcv.create_model(name, **WIDTHS[name], num_classes=num_classes, **settings)


def values_of(network: Any) -> dict[str, np.ndarray]:
    return {p.name: p.asnumpy() for p in network.get_parameters()}


@cache
def values_of_official(name: str) -> dict[str, np.ndarray]:
    """The state dict of MMDetection's. Not to be changed."""
    shapes = {official_name(p.name): p.shape for p in tiny(name).get_parameters()}
    return {name: official_weight(name, shape) for name, shape in shapes.items()}


def weights_of(name: str) -> ModelWeights:
    """Those of a run."""
    values = values_of(load_official_weights(tiny(name)))
    metadata = {
        "task": "detection",
        "model": name,
        "num_classes": 3,
        "in_channels": 3,
        "classes": list(CLASSES),
        "category_ids": list(CATEGORY_IDS),
        "limits": {"detections": 7},
        "preprocessing": PREPROCESSING,
    }
    found = recognise(Source(Path("best.ckpt"), values, metadata))
    assert found.metadata == metadata
    return found


def assert_same(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def command(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> None:
    monkeypatch.setattr("sys.argv", ["weights", *map(str, words)])
    main()


@pytest.mark.parametrize("name", BOTH)
def test_a_checkpoint_of_ours(tmp_path: Path, name: str) -> None:
    weights = weights_of(name)
    write_weights(weights, tmp_path / "best.ckpt", "ckpt")
    found = find_weights(ModelConfig(model=name), tmp_path / "best.ckpt")
    facts = {"num_classes": 3, "in_channels": 3, "detections": 7}
    assert found.settings == {**facts, **WIDTHS[name]}
    network = mindcv.create_model(name, **found.settings)
    assert network.limits == tiny(name).limits | {"detections": 7}
    load_weights(network, found)
    assert_same(values_of(network), weights.values)
    assert (network.classes, network.category_ids) == (CLASSES, CATEGORY_IDS)
    assert network.preprocessing == PREPROCESSING
    save_weights(network, tmp_path / "again.safetensors")
    again = read_weights(tmp_path / "again.safetensors")
    assert_same(again.values, weights.values)
    assert again.metadata == weights.metadata | {"limits": network.limits}


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("classes", [CLASSES, ("disc", "ring", "bar"), (*CLASSES, "more")])
def test_a_detector_starts_from_one(name: str, classes: tuple[str, ...]) -> None:
    weights = weights_of(name)
    network = tiny(name, len(classes))
    before = values_of(network)
    line = start_from(network, weights, classes)
    other = classes != CLASSES
    assert f"new and untrained, for {len(classes)} classes" in line or not other
    for key, value in values_of(network).items():
        fresh = other and key.startswith(LAST[name])
        np.testing.assert_array_equal(value, (before if fresh else weights.values)[key], key)
    assert network.classes == classes
    assert network.category_ids == (() if other else CATEGORY_IDS)


@pytest.mark.parametrize("name", BOTH)
def test_a_detector_starts_from_a_backbone(name: str, tiny_segmenter: str) -> None:
    """Of a classifier, a segmentation model, and a detector of the other kind."""
    other = RETINANET if name == MASK_RCNN else MASK_RCNN
    for source in ("poolformer_tiny", tiny_segmenter, other):
        donor = load_official_weights(mindcv.create_model(source, num_classes=3))
        weights = recognise(Source(Path("x.ckpt"), values_of(donor), {}))
        network = tiny(name)
        before = values_of(network)
        line = start_from(network, weights, CLASSES)
        assert line.endswith(
            "norms of its maps, neck and head are new and untrained, for 3 classes"
        )
        prefix = "" if source == "poolformer_tiny" else "backbone."
        taken = 0
        for key, value in values_of(network).items():
            theirs = prefix + key.removeprefix("backbone.")
            new = not key.startswith(("backbone.patch", "backbone.network"))
            expected = before[key] if new else weights.values[theirs]
            np.testing.assert_array_equal(value, expected, err_msg=key)
            taken += not new
        assert taken > 40
        assert (network.classes, network.category_ids) == (CLASSES, ())
        assert network.preprocessing["img_scale"] == [1333, 800]


def test_others_start_from_a_detector(tiny_segmenter: str) -> None:
    weights = weights_of(MASK_RCNN)
    segmenter = mindcv.create_model(tiny_segmenter, num_classes=3)
    line = start_from(segmenter, weights)
    assert "its backbone is taken, without the norms of its maps, neck and head; the" in line
    stem = "backbone.patch_embed.proj.weight"
    np.testing.assert_array_equal(values_of(segmenter)[stem], weights.values[stem])
    network = mindcv.create_model("poolformer_tiny", num_classes=5)
    assert "its backbone is taken, and the norm before the head is new" in start_from(
        network, weights
    )
    stem = "patch_embed.proj.weight"
    np.testing.assert_array_equal(values_of(network)[stem], weights.values[f"backbone.{stem}"])


@pytest.mark.parametrize("name", BOTH)
def test_what_training_of_mmdetection_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    torch = pytest.importorskip("torch", reason="these checkpoints are PyTorch's")
    official = values_of_official(name)
    state = {key: torch.tensor(value) for key, value in official.items()}
    optimizer = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []}
    meta = {"mmdet_version": "2.19.0", "CLASSES": CLASSES, "epoch": 12}
    torch.save(
        {"meta": meta, "state_dict": state, "optimizer": optimizer}, tmp_path / "epoch_12.pth"
    )
    weights = find_weights(ModelConfig(model=name, ckpt_path=str(tmp_path / "epoch_12.pth")))
    assert str(weights) == (
        f"MMDetection {name}, 3 classes, 3 input channels; taken is state_dict; left out: optimizer"
    )
    assert weights.classes == CLASSES
    assert_same(weights.values, values_of(load_official_weights(tiny(name))))

    monkeypatch.chdir(tmp_path)
    command(monkeypatch, "convert", "epoch_12.pth", "ours.ckpt")
    assert read_checkpoint("ours.ckpt").metadata == {
        "model": name,
        "num_classes": 3,
        "in_channels": 3,
        "task": "detection",
        "classes": list(CLASSES),
    }
    write_weights(weights_of(name), Path("run.ckpt"), "ckpt")
    command(monkeypatch, "convert", "run.ckpt", "theirs.pth")
    content = torch.load("theirs.pth", weights_only=True)
    assert content["meta"]["CLASSES"] == CLASSES
    assert_same({key: value.numpy() for key, value in content["state_dict"].items()}, official)
    assert read_weights("theirs.pth").metadata == weights_of(name).metadata
    command(monkeypatch, "convert", "run.ckpt", "backbone.ckpt", "--part", "backbone")
    assert read_weights("backbone.ckpt").model == "poolformer_tiny"


@pytest.mark.parametrize("name", DETECTOR_SHAPES)
def test_names_and_shapes_tell_official_models_apart(name: str) -> None:
    nothing = np.float32(0)
    values = {key: np.broadcast_to(nothing, s) for key, s in DETECTOR_SHAPES[name].items()}
    naming = next(naming for naming in OPENMMLAB if naming.fits(values))
    assert variant_of(naming, Source(Path("latest.pth"), values, {}), 80, None) == name


def test_an_official_retinanet_has_a_norm_too_many_or_not() -> None:
    name = "retinanet_poolformer_s12"
    values = {key: official_weight(key, tuple(s)) for key, s in DETECTOR_SHAPES[name].items()}
    unused = {"backbone.norm0.weight", "backbone.norm0.bias"}
    assert unused < values.keys()
    whole = recognise(Source(Path("x.pth"), values, {}))
    assert (whole.model, whole.num_classes) == (name, 80)
    assert (whole.classes[0], whole.classes[11], whole.classes[79]) == (
        "person",
        "stop sign",
        "toothbrush",
    )
    ids = whole.category_ids
    assert (len(ids), ids[0], ids[11], ids[79]) == (80, 1, 13, 90)
    told = {"CLASSES": tuple(f"c{n}" for n in range(80))}
    other = recognise(Source(Path("x.pth"), values, {}, meta=told))
    assert (other.classes[1], other.category_ids) == ("c1", ())
    assert "left out: the norm of the first map" in whole.note
    without = {key: value for key, value in values.items() if key not in unused}
    last_three = recognise(Source(Path("x.pth"), without, {}))
    assert last_three.note == ""
    assert_same(last_three.values, whole.values)


@pytest.mark.parametrize("name", BOTH)
def test_new_last_layers(name: str) -> None:
    weights = weights_of(name)
    more = weights.with_new_head(40)
    assert (more.num_classes, more.classes, more.category_ids) == (40, (), ())
    network = tiny(name, 40)
    drawn = values_of(network)
    load_weights(network, more)
    for key, value in values_of(network).items():
        if not key.startswith(LAST[name]):
            np.testing.assert_array_equal(value, weights.values[key], err_msg=key)
        elif key.endswith("bias"):
            np.testing.assert_array_equal(value, drawn[key], err_msg=key)
        else:
            assert value.std() == pytest.approx(drawn[key].std(), rel=0.2), key


def test_detectors_are_not_mixed_up(tmp_path: Path) -> None:
    weights = weights_of(RETINANET)
    for other, said in (
        (tiny(MASK_RCNN), "a RetinaNet, expected those of a Mask R-CNN$"),
        (
            mindcv.create_model("poolformer_tiny", num_classes=3),
            "a RetinaNet, expected those of a classifier$",
        ),
    ):
        with pytest.raises(UserError, match=f"best.ckpt: found weights of {RETINANET}, {said}"):
            load_weights(other, weights)
    write_weights(weights, tmp_path / "r.ckpt", "ckpt")
    with pytest.raises(UserError, match="r.ckpt: found weights of .*expected those of a Mask R"):
        find_weights(ModelConfig(model=MASK_RCNN), tmp_path / "r.ckpt")
    with pytest.raises(UserError, match="found retinanet_poolformer_s12 for .*expected its"):
        s12 = "retinanet_poolformer_s12"
        find_weights(ModelConfig(model=s12, ckpt_path=str(tmp_path / "r.ckpt")))


def test_other_detectors() -> None:
    values = values_of_official(MASK_RCNN)
    source = Source(Path("x.pth"), values, {})
    cascade = {
        name.replace("roi_head.bbox_head.", "roi_head.bbox_head.0.").replace(
            "roi_head.mask_head.", "roi_head.mask_head.0."
        ): value
        for name, value in values.items()
    }
    with pytest.raises(UserError, match="^x.pth: found a detector's bbox_head, roi_head, rpn_"):
        recognise(replace(source, values=cascade))
    for limits, found in (
        ({"nms_pre": 50}, "nms_pre 50"),
        ({"proposals": 0.5}, "proposals 0.5"),
        ({"score_threshold": True}, "score_threshold True"),
        ([50], r"limits \[50\]"),
    ):
        told = {"model": MASK_RCNN, "limits": limits}
        with pytest.raises(UserError, match=f"^x.pth: found {found} to limit .* numbers of propos"):
            recognise(replace(source, metadata=told))
    told = {"model": MASK_RCNN, "limits": {"score_threshold": 0, "proposals": np.int64(50)}}
    assert recognise(replace(source, metadata=told)).limits == {
        "score_threshold": 0.0,
        "proposals": 50,
    }
    resnet = {f"backbone.layer1.{n}.conv1.weight": np.ones((4, 3, 1, 1)) for n in range(3)}
    heads = {name: value for name, value in values.items() if not name.startswith("backbone.")}
    with pytest.raises(UserError, match="found parameters named backbone.layer1.0.conv1.weight"):
        recognise(replace(source, values=resnet | heads))
    missing = {name: value for name, value in values.items() if "fc_reg.weight" not in name}
    with pytest.raises(UserError, match="1 parameter does not fit .*fc_reg.weight is missing$"):
        recognise(replace(source, values=missing))


def test_where_the_recipes_limits_count_that_is_said() -> None:
    flags = ["--config", str(CONFIGS / "mask_rcnn_poolformer_s12_digits.yaml")]
    recipe = parse_recipe(flags, description="A test.", default_config="none")
    told = {"model": MASK_RCNN, "limits": {"proposals": 64, "proposals_per_level": 1000}}
    weights = recognise(Source(Path("x.ckpt"), values_of_official(MASK_RCNN), told))
    assert limits_note(recipe, weights) == (
        "x.ckpt: the recipe's limits count, proposals_per_level 64 instead of 1000"
    )
    assert not limits_note(recipe, replace(weights, limits={"proposals": 64}))
