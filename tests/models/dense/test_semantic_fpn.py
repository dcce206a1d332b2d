"""Semantic FPN against the official one's numbers, see ``official.py``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import mindcv
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from official import load_official_weights, official_name, without_values
from official_dense import DENSE, check_gradients, check_map, official_images

from mindcv_poolformer.models import POOLFORMERS, SEGMENTERS, VARIANTS, SemanticFPN, find_variant
from mindcv_poolformer.models.dense import SegmentationLoss, label_map
from mindcv_poolformer.models.dense.semantic_fpn import ChannelDropout
from mindcv_poolformer.models.parts.layout import from_channels_first, to_channels_first
from mindcv_poolformer.models.registry import build
from mindcv_poolformer.models.variants import Variant
from mindcv_poolformer.runtime.errors import UserError

SHAPES = json.loads((DENSE / "official_state_dict_shapes.json").read_text())
SIZES = {"128x160": (100, 128, 160), "100x150": (101, 100, 150)}  # seed, height, width
SMALL = {"depths": (1, 1, 1, 1), "dims": (8, 8, 32, 32)}


def official_network() -> SemanticFPN:
    return load_official_weights(without_values("semantic_fpn_poolformer_s12", num_classes=150))


@pytest.mark.parametrize(
    "name", [n if "_s" in n[-4:] else pytest.param(n, marks=pytest.mark.long) for n in SHAPES]
)
def test_parameters_are_the_official_ones(name: str) -> None:
    shapes = {n: s for n, s in SHAPES[name].items() if not n.endswith("num_batches_tracked")}
    network = without_values(name, num_classes=150)
    assert {official_name(p.name): list(p.shape) for p in network.get_parameters()} == shapes


@pytest.mark.layout
@pytest.mark.parametrize("size", SIZES)
def test_maps_and_labels_are_the_official_ones(size: str, pynative_mode: None) -> None:
    official = np.load(DENSE / f"fpn_s12_forward_{size}.npz")
    seed, height, width = SIZES[size]
    network = official_network().set_train(False)
    images = official_images(seed, 1, 3, height, width)
    maps = network.backbone.feature_maps(images)
    for number, x in enumerate(maps):
        check_map(official, f"c{number + 2}", 8, x)
    levels = network.neck(maps)
    for number, x in enumerate(levels):
        check_map(official, f"p{number}", 16, x)
    logits = network.decode_head(levels)
    check_map(official, "logits", 10, logits)
    size = (height + 13, width + 27)
    check_labels(official, label_map(to_channels_first(logits), (height, width), size))


def check_labels(official: Any, found: Tensor) -> None:
    expected = official["label_map"]
    sure = np.unpackbits(official["label_map.sure"], count=expected.size).reshape(expected.shape)
    assert sure.mean() > 0.99
    assert found.dtype == ms.int32 and found.shape == (1, *expected.shape)
    assert (found.asnumpy()[0] == expected)[sure == 1].all()


@pytest.mark.rare
def test_a_graph_segments_as_the_official_code() -> None:
    network = official_network().set_train(False)
    logits = network(official_images(100, 1, 3, 128, 160))
    with np.load(DENSE / "fpn_s12_forward_128x160.npz") as official:
        expected = official["logits[:, ::10]"]
        np.testing.assert_allclose(logits.asnumpy()[:, ::10], expected, rtol=0, atol=7e-4)
        ms.set_context(mode=ms.PYNATIVE_MODE)
        check_labels(official, label_map(logits, (128, 160), (141, 187)))


@pytest.mark.long
@pytest.mark.layout
def test_gradients_are_the_official_ones(pynative_mode: None) -> None:
    check_training()


@pytest.mark.rare  # a minute; test_dense_graphs.py has a small one
def test_gradients_of_a_graph_are_the_official_ones() -> None:
    check_training()


def check_training() -> None:
    official = np.load(DENSE / "fpn_s12_train_128x160.npz")
    images = official_images(110, 2, 3, 128, 160)
    labels, everything = Tensor(official["labels"]), Tensor(np.ones((2, 128), np.float32))
    network, loss = official_network().set_train(), SegmentationLoss(255)

    def forward(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = network(images, everything)
        return loss(logits, labels), logits

    value, _ = check_gradients(official, forward, network.trainable_params(), (images, labels))
    assert float(value) == pytest.approx(float(official["train_bn.loss"]), rel=1e-5)
    after = {key[6:]: official[key] for key in official.files if key.startswith("after.")}
    assert len(after) == 14
    for parameter in network.get_parameters():
        name = official_name(parameter.name)
        if name in after:
            np.testing.assert_allclose(parameter.asnumpy(), after[name], rtol=1e-5, atol=1e-6)


def test_the_loss_before_training_is_the_official_one(pynative_mode: None) -> None:
    official = np.load(DENSE / "fpn_s12_train_128x160.npz")
    logits = official_network().set_train(False)(official_images(110, 2, 3, 128, 160))
    loss = SegmentationLoss(255)(logits, Tensor(official["labels"]))
    assert float(loss) == pytest.approx(float(official["eval_bn.loss"]), rel=1e-5)


def test_the_loss_is_the_mean_over_ignored_places_too(pynative_mode: None) -> None:
    logits = np.random.default_rng(0).standard_normal((2, 5, 3, 4)).astype(np.float32)
    labels = np.random.default_rng(1).integers(0, 5, (2, 3, 4))
    labels[0, 1], labels[1, :, 2] = 255, 255
    wide = logits.astype(np.float64)
    spread = np.log(np.exp(wide).sum(1))
    picked = np.take_along_axis(wide, np.minimum(labels, 4)[:, None], 1)[:, 0]
    expected = ((spread - picked) * (labels != 255)).sum() / labels.size
    loss = SegmentationLoss(255)
    assert float(loss(Tensor(logits), Tensor(labels))) == pytest.approx(expected, rel=1e-6)
    nothing = Tensor(np.full((2, 6, 9), 255))
    assert float(loss(Tensor(logits), nothing)) == 0


def small_segmenter(family: str | None, **settings: Any) -> SemanticFPN:
    layer_scale = 1e-5 if family is None or family.startswith("metaformer") else None
    variant = Variant(
        **SMALL,
        drop_path_rate=0,
        crop_pct=1,
        parameters=0,
        gmacs=0,
        published_top1=None,
        layer_scale_init=layer_scale,
        family=family,
    )
    backbone = build(variant, features_only=True)
    return SemanticFPN(backbone, **{"neck_channels": 8, "head_channels": 8, **settings})


@pytest.mark.layout
@pytest.mark.parametrize(
    "family", [None, "metaformer_id", "poolformerv2", "convformer", "caformer"]
)
def test_any_family_is_a_backbone(family: str | None, pynative_mode: None) -> None:
    network = small_segmenter(family, num_classes=3).set_train(False)
    images = official_images(0, 1, 3, 34, 47)
    maps = network.backbone.feature_maps(images)
    for ours, theirs in zip(maps, network.backbone(images), strict=True):
        np.testing.assert_array_equal(to_channels_first(ours).asnumpy(), theirs.asnumpy())
    assert network.decode_head(network.neck(maps)).size == 3 * 8 * 12


def test_a_call_and_a_segmentation_of_images(pynative_mode: None) -> None:
    ms.set_seed(0)  # else one class may be everywhere
    network = small_segmenter(None, num_classes=3).set_train(False)
    images = official_images(0, 2, 3, 66, 47)
    logits = network(images)
    assert logits.shape == (2, 3, 16, 12)
    for size, asked in (((66, 47), None), ((50, 80), (50, 80))):
        expected = label_map(logits, (66, 47), size)
        assert expected.shape == (2, *size) and len(np.unique(expected.asnumpy())) > 1
        np.testing.assert_array_equal(network.segment(images, asked).asnumpy(), expected.asnumpy())


def test_a_classifier_is_no_backbone() -> None:
    with pytest.raises(ValueError, match="^backbone: found a classifier"):
        SemanticFPN(without_values("poolformer_s12"))


@pytest.mark.layout
def test_dropout_takes_whole_channels(pynative_mode: None) -> None:
    x = np.random.default_rng(0).uniform(1, 2, (4, 50, 3, 5)).astype(np.float32)
    scale = np.random.default_rng(1).integers(0, 2, (4, 50)).astype(np.float32) / 0.9
    dropout = ChannelDropout(0.1)

    def drop(cell: ChannelDropout, *scale: Tensor) -> np.ndarray:
        return to_channels_first(cell(from_channels_first(Tensor(x)), *scale)).asnumpy()

    given = drop(dropout.set_train(), Tensor(scale))
    np.testing.assert_allclose(given, x * scale[:, :, None, None], rtol=1e-6)
    np.testing.assert_array_equal(drop(dropout.set_train(False)), x)
    np.testing.assert_array_equal(drop(ChannelDropout(0.0).set_train()), x)
    ratio = drop(dropout.set_train()) / x
    assert (ratio.max((2, 3)) - ratio.min((2, 3))).max() < 1e-6
    assert 0 < (ratio[:, :, 0, 0] == 0).mean() < 0.3
    assert ratio.max() == pytest.approx(1 / 0.9)


def test_initial_values_are_the_official_ones() -> None:
    network = mindcv.create_model("semantic_fpn_poolformer_s12", num_classes=150)
    values = {p.name: p.asnumpy() for p in network.get_parameters()}
    lateral, block = values["neck.lateral_convs.3.conv.weight"], "decode_head.scale_heads.2.0"
    bound = np.sqrt(6 / (512 + 256))
    assert abs(lateral).max() <= bound and lateral.std() == pytest.approx(bound / 3**0.5, rel=0.02)
    smooth = values["neck.fpn_convs.0.conv.weight"]
    assert smooth.std() == pytest.approx(np.sqrt(2 / (9 * 512)), rel=0.02)
    convolution = values[f"{block}.conv.weight"]
    assert convolution.std() == pytest.approx(np.sqrt(2 / (9 * 128)), rel=0.02)
    assert values["decode_head.conv_seg.weight"].std() == pytest.approx(0.01, rel=0.03)
    assert (values[f"{block}.bn.gamma"] == 1).all() and (values["backbone.norm4.gamma"] == 1).all()
    for name, value in values.items():
        if name.endswith(".bias") and not name.endswith("proj.bias") or name.endswith(".beta"):
            assert not value.any(), name
    assert not any(network.backbone.drop_path_rates)


@pytest.mark.parametrize("name", SHAPES)
def test_the_table_of_the_docs_is_the_official_one(name: str) -> None:
    counted = [s for n, s in SHAPES[name].items() if "running_" not in n and "num_ba" not in n]
    parameters, miou = sum(map(math.prod, counted)), SEGMENTERS[name].published_miou
    page = Path(__file__).parents[3] / "docs" / "segmentation.md"
    assert f"| {name} | {parameters:,} | {miou} % |" in page.read_text()


def test_the_registry_has_the_segmenters_and_the_classifiers_apart() -> None:
    assert set(mindcv.list_models("semantic_fpn_*")) == set(SEGMENTERS)
    assert sorted(mindcv.list_models("poolformer_*")) == sorted(POOLFORMERS)
    assert not set(SEGMENTERS) & set(VARIANTS)
    assert {s.backbone for s in SEGMENTERS.values() if s.published_miou} == set(POOLFORMERS)
    assert "semantic_fpn_caformer_s18_384" in SEGMENTERS
    assert "semantic_fpn_randformer_s12" not in SEGMENTERS  # for 224 px alone


@pytest.mark.parametrize(
    ("family", "layers"),
    [
        (
            None,
            {"patch_embed.proj.bias": 0, "network.0.0.norm1.gamma": 1, "network.5.proj.bias": 4},
        ),
        ("caformer", {"downsample_layers.0.conv.bias": 0, "stages.3.0.norm2.gamma": 4}),
    ],
)
def test_layers_count_from_the_stem_to_neck_and_head(family: str | None, layers: dict) -> None:
    network = small_segmenter(family)
    names = {p.name for p in network.get_parameters()}
    expected = {f"backbone.{name}": layer for name, layer in layers.items()}
    expected |= dict.fromkeys(("neck.fpn_convs.3.conv.bias", "decode_head.conv_seg.weight"), 5)
    if family is None:
        expected["backbone.norm2.gamma"] = 5
    assert expected.keys() <= names
    assert {name: network.layer_of(name) for name in expected} == expected
    parts = {name.partition(".")[0] for name in names if network.in_head(name)}
    assert parts == {"neck", "decode_head"}
    assert {n for n in names if not network.in_head(n)} == {n for n in names if "backbone." in n}


def test_a_segmenter_is_refused_where_a_classifier_is_wanted() -> None:
    with pytest.raises(UserError, match="^model: found 'semantic_fpn_poolformer_s12', a segment"):
        find_variant("semantic_fpn_poolformer_s12")
