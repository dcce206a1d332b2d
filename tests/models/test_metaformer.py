"""The MetaFormers against the official code's logits, and their parts against formulas."""

from __future__ import annotations

from math import prod

import mindcv
import mindspore as ms
import numpy as np
import pytest
from gradients import gradients_in_both_modes
from mindspore import Tensor
from official import (
    EXACT,
    OUTPUTS,
    SHAPES,
    load_official_weights,
    official_name,
    rounding_of,
    without_values,
)
from op_by_op import op_by_op

from mindcv_poolformer.models import VARIANTS, MetaFormer, default_cfgs
from mindcv_poolformer.models.deploy import to_deploy
from mindcv_poolformer.models.parts.activations import StarReLU
from mindcv_poolformer.models.parts.convolutions import DepthwiseConv
from mindcv_poolformer.models.parts.mixers import Attention, RandomMixing
from mindcv_poolformer.models.parts.norms import ChannelNorm, SampleNorm
from mindcv_poolformer.models.variants import FAMILIES
from mindcv_poolformer.runtime.amp import mixed_precision

SMALL = {"depths": (1, 1, 2, 1), "dims": (32, 32, 64, 64)}
ONE_EACH = (1, 1, 1, 1)
FIRST_AND_LAST = (1, 0, 0, 1)  # a block of either mixer, with residuals as they are and scaled
METAFORMERS = [name for name, variant in VARIANTS.items() if variant.is_metaformer]
IMAGES = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
METAFORMER_FAMILIES = [f for f, parts in FAMILIES.items() if not parts.hybrid]
SMALLEST = (
    "identityformer_s12",
    "randformer_s12",
    "poolformerv2_s12",
    "convformer_s18",
    "caformer_s18",
)
MARKS = dict.fromkeys(SMALLEST, pytest.mark.layout) | {"caformer_m36": pytest.mark.long}


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def small(family: str, **settings: object) -> MetaFormer:
    network = MetaFormer(**{**SMALL, "family": family, "num_classes": 7, **settings})
    return load_official_weights(network).set_train(False)


@pytest.mark.parametrize("name", [name for name in METAFORMERS if name in SHAPES])
def test_parameters_are_the_official_ones(name: str) -> None:
    network = without_values(name)
    shapes = {official_name(p.name): list(p.shape) for p in network.get_parameters()}
    assert shapes == SHAPES[name]
    assert sum(map(prod, shapes.values())) == VARIANTS[name].parameters


def check_logits(name: str) -> None:
    network = load_official_weights(without_values(name)).set_train(False)
    logits = network(Tensor(IMAGES)).asnumpy()
    allowed = max(1e-4, 4 * rounding_of(name))
    np.testing.assert_allclose(logits, OUTPUTS[f"{name}/logits"], rtol=0, atol=allowed)
    np.testing.assert_allclose(logits, EXACT[name], rtol=0, atol=allowed)
    second, first = np.sort(EXACT[name], axis=1)[:, -2:].T
    clear = first - second > 2 * allowed  # else rounding decides
    assert (logits.argmax(1) == OUTPUTS[f"{name}/logits"].argmax(1))[clear].all()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=MARKS.get(name, pytest.mark.rare))
        for name in METAFORMERS
        if f"{name}/logits" in OUTPUTS
    ],
)
def test_logits_are_the_official_ones_op_by_op(name: str, pynative_mode: None) -> None:
    check_logits(name)


@pytest.mark.layout
@pytest.mark.long
def test_logits_of_a_graph_are_the_official_ones() -> None:
    check_logits("caformer_s18")  # the others' graphs are compared with their operators below


@pytest.mark.layout
@pytest.mark.parametrize("family", METAFORMER_FAMILIES)
def test_o3_and_the_deploy_form_give_the_same(family: str, both_modes: str) -> None:
    edge = 224 if family == "randformer" else 96  # which is for one size alone
    images = Tensor(draw(2, 3, edge, edge))
    depths = FIRST_AND_LAST if both_modes == "graph" else ONE_EACH
    plain = small(family, depths=depths)
    logits = op_by_op(plain, images).asnumpy()
    assert np.ptp(logits) > 0.5
    if both_modes == "pynative":  # as a graph the tests of bundles have it, of those that mix
        found = to_deploy(plain)(images).asnumpy()
        np.testing.assert_allclose(found, logits, rtol=0, atol=2e-5)
    for network in (plain, to_deploy(small(family, depths=depths))):
        found = mixed_precision(network, "O3")(images).asnumpy()
        np.testing.assert_allclose(found, logits, rtol=0, atol=0.05)


@pytest.mark.long
@pytest.mark.parametrize(
    ("family", "size"),
    [
        ("poolformerv2", 32),
        ("caformer", 32),
        ("convformer", 96),
        ("identityformer", 64),
        ("randformer", 224),
    ],
)
def test_gradients_of_a_graph_are_those_op_by_op(family: str, size: int) -> None:
    of_graph, of_operators = gradients_in_both_modes(
        small(family, depths=FIRST_AND_LAST), draw(4, 3, size, size)
    )
    largest = max(np.abs(gradient).max() for gradient in of_operators[2:])
    for one, other in zip(of_graph, of_operators, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=1e-4 * largest)


def test_channel_norm(both_modes: str) -> None:
    x, gamma = draw(2, 5, 4, 8) * 3 + 100, draw(8)
    norm = ChannelNorm(8)
    norm.gamma.set_data(Tensor(gamma))
    wide = x.astype(np.float64)
    centred = wide - wide.mean(-1, keepdims=True)
    expected = centred / np.sqrt(wide.var(-1, keepdims=True) + 1e-6) * gamma
    np.testing.assert_allclose(norm(Tensor(x)).asnumpy(), expected, atol=2e-4)


def test_sample_norm(both_modes: str) -> None:
    x, gamma = draw(2, 5, 4, 8) * 3 + 100, draw(8)
    norm = SampleNorm(8)
    norm.gamma.set_data(Tensor(gamma))
    wide = x.astype(np.float64)
    centred = wide - wide.mean((1, 2, 3), keepdims=True)
    expected = centred / np.sqrt(wide.var((1, 2, 3), keepdims=True) + 1e-6) * gamma
    np.testing.assert_allclose(norm(Tensor(x)).asnumpy(), expected, atol=2e-4)


def test_star_relu_stays_finite_in_float16() -> None:
    act = StarReLU()
    act.scale.set_data(Tensor(np.array([1e-3], np.float32)))
    act.bias.set_data(Tensor(np.array([-0.5], np.float32)))
    x = np.array([-2, 0, 3, 400], np.float16)
    found = act(Tensor(x)).asnumpy()
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, [-0.5, -0.5, 9e-3 - 0.5, 159.5], rtol=2e-3)


def convolve(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Each channel of (N, H, W, C) with its own weights (C, 1, k, k), padded with zeros."""
    n, height, width, _ = x.shape
    size = weight.shape[-1]
    margin = size // 2
    padded = np.pad(x.astype(np.float64), ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    return sum(
        padded[:, i : i + height, j : j + width] * weight[:, 0, i, j]
        for i in range(size)
        for j in range(size)
    )


@pytest.mark.parametrize(
    ("size", "height", "width", "both_modes"),
    [
        (7, 9, 5, "pynative"),
        (7, 3, 12, "pynative"),
        (3, 4, 4, "pynative"),
        pytest.param(7, 9, 5, "graph", marks=pytest.mark.long),
    ],
    indirect=["both_modes"],
)
def test_depthwise_convolution_and_its_gradients(
    size: int, height: int, width: int, both_modes: str
) -> None:
    x, weight = draw(2, height, width, 6), draw(6, 1, size, size)
    conv = DepthwiseConv(6, size)
    conv.weight.set_data(Tensor(weight))
    np.testing.assert_allclose(conv(Tensor(x)).asnumpy(), convolve(x, weight), atol=1e-5)
    half = conv(Tensor(x.astype(np.float16))).asnumpy()
    np.testing.assert_allclose(half, convolve(x, weight), atol=0.02)

    # The convolution is linear in both, so along any direction a gradient gives its result there.
    slope = np.random.default_rng(5).standard_normal(x.shape).astype(np.float32)

    def climb(x: Tensor, slope: Tensor) -> Tensor:
        return (conv(x) * slope).sum()

    gradient = ms.grad(climb, 0, conv.weight)
    by_x, by_weight = (found.asnumpy() for found in gradient(Tensor(x), Tensor(slope)))
    along_x, along_weight = draw(*x.shape)[::-1], draw(*weight.shape)[::-1]
    for found, direction, expected in (
        (by_x, along_x, convolve(along_x, weight)),
        (by_weight, along_weight, convolve(x, along_weight)),
    ):
        assert (found * direction).sum() == pytest.approx((expected * slope).sum(), abs=1e-3)


def test_attention(both_modes: str) -> None:
    mixer = load_official_weights(Attention(64))
    x = draw(2, 3, 4, 64)
    qkv, proj = (p.asnumpy().astype(np.float64) for p in (mixer.qkv.weight, mixer.proj.weight))
    expected = np.empty((2, 12, 64))
    for sample in range(2):
        tokens = x[sample].reshape(12, 64) @ qkv.T
        for head in range(2):
            q, k, v = (tokens[:, 64 * i + 32 * head :][:, :32] for i in range(3))
            scores = np.exp(q @ k.T / np.sqrt(32))
            expected[sample, :, 32 * head : 32 * (head + 1)] = (
                scores / scores.sum(1, keepdims=True) @ v
            )
    expected = (expected @ proj.T).reshape(x.shape)
    np.testing.assert_allclose(mixer(Tensor(x)).asnumpy(), expected, atol=1e-5)


def test_random_mixing_is_frozen_and_of_one_size(both_modes: str) -> None:
    mixer = RandomMixing(3)
    assert not mixer.random_matrix.requires_grad
    weights = mixer.random_matrix.asnumpy()
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)
    x = draw(2, 3, 3, 5)
    expected = (weights @ x.reshape(2, 9, 5)).reshape(x.shape)
    np.testing.assert_allclose(mixer(Tensor(x)).asnumpy(), expected, atol=1e-6)
    with pytest.raises(ValueError, match="random mixing: found a map of another size"):
        mixer(Tensor(draw(2, 3, 4, 5)))


@pytest.mark.parametrize("family", ["poolformerv2", "convformer", "caformer"])
def test_other_sizes_and_channels(family: str, pynative_mode: None) -> None:
    network = small(family, in_channels=1)
    logits = network(Tensor(draw(2, 1, 65, 40)))
    assert logits.shape == (2, 7)
    assert np.isfinite(logits.asnumpy()).all()


def test_features_and_heads(pynative_mode: None) -> None:
    images = Tensor(draw(2, 3, 64, 64))
    network = small("caformer")
    maps = network.stage_maps(images)
    assert [m.shape for m in maps] == [(2, 32, 16, 16), (2, 32, 8, 8), (2, 64, 4, 4), (2, 64, 2, 2)]
    features = small("caformer", features_only=True, out_indices=(1, 3))
    assert [info["name"] for info in features.feature_info] == ["stages.1", "stages.3"]
    for found, expected in zip(features(images), maps[1::2], strict=True):
        np.testing.assert_array_equal(found.asnumpy(), expected.asnumpy())
    logits = network(images).asnumpy()
    for stage, activations in enumerate(maps):
        found = network.logits_after(activations, stage).asnumpy()
        np.testing.assert_allclose(found, logits, atol=1e-5)
    network.reset_classifier(3)
    assert network(images).shape == (2, 3)
    assert network.head.fc1.weight.asnumpy().std() == pytest.approx(0.02, rel=0.2)


def test_drop_path_drops_branches_and_keeps_the_rest(pynative_mode: None) -> None:
    network = small("poolformerv2")
    images = Tensor(draw(2, 3, 32, 32))
    scales = np.ones((5, 2, 2), np.float32)
    np.testing.assert_allclose(
        network(images, Tensor(scales)).asnumpy(), network(images).asnumpy(), atol=1e-5
    )
    scales[:, :, 0] = 0  # nothing but the convolutions is left of the first sample
    for block in [block for stage in network.stages for block in stage]:
        block.mlp.fc2.weight.set_data(Tensor(np.zeros(block.mlp.fc2.weight.shape, np.float32)))
        block.norm1.gamma.set_data(Tensor(np.zeros(block.norm1.gamma.shape, np.float32)))
    changed = network(images, Tensor(scales)).asnumpy()
    np.testing.assert_allclose(changed, network(images).asnumpy(), atol=1e-5)


def test_head_dropout_is_for_mlp_heads() -> None:
    assert small("convformer", head_drop_rate=0.4).head.head_dropout.p == pytest.approx(0.4)
    with pytest.raises(ValueError, match="head_drop_rate: found 0.4, expected 0 for a randformer"):
        small("randformer", head_drop_rate=0.4)
    with pytest.raises(ValueError, match="head: found 'norm_pool', expected 'pool_norm'"):
        small("caformer", head="norm_pool")


def test_layers_count_from_the_stem_to_the_head() -> None:
    network = small("caformer")
    layers = {
        "downsample_layers.0.conv.weight": 0,
        "downsample_layers.0.post_norm.gamma": 0,
        "stages.0.0.token_mixer.dwconv.weight": 1,
        "downsample_layers.2.pre_norm.gamma": 3,
        "stages.2.0.norm1.gamma": 3,
        "stages.2.1.mlp.act.scale": 4,
        "stages.3.0.res_scale1.scale": 5,
        "norm.gamma": 6,
        "head.fc2.bias": 6,
    }
    assert {name: network.layer_of(name) for name in layers} == layers


def test_initialisation_is_the_official_one() -> None:
    ms.set_seed(1)
    values = {p.name: p.asnumpy() for p in mindcv.create_model("caformer_s18").get_parameters()}
    for name in ("stages.0.0.token_mixer.dwconv", "stages.3.0.token_mixer.qkv", "head.fc1"):
        assert values[f"{name}.weight"].std() == pytest.approx(0.02, rel=0.02)
    assert values["downsample_layers.1.conv.weight"].std() == pytest.approx(0.02, rel=0.02)
    assert not values["downsample_layers.1.conv.bias"].any()
    assert (values["stages.2.0.res_scale1.scale"] == 1).all()
    assert (values["stages.0.0.mlp.act.bias"] == 0).all()


def test_configurations_tell_size_and_classes() -> None:
    assert default_cfgs["caformer_b36_384_in21ft1k"]["input_size"] == (3, 384, 384)
    assert default_cfgs["convformer_b36_in21k"]["num_classes"] == 21_841
    assert default_cfgs["poolformerv2_s12"]["first_conv"] == "downsample_layers.0.conv"
