from __future__ import annotations

import subprocess
import sys

import mindcv
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from official import OUTPUTS, SHAPES, load_official_weights, official_name, without_values
from op_by_op import op_by_op

from mindcv_poolformer.models import POOLFORMERS, VARIANTS, PoolFormer
from mindcv_poolformer.models.parts.layers import DropPath
from mindcv_poolformer.models.parts.layout import from_channels_first, to_channels_first
from mindcv_poolformer.models.parts.mixers import Pooling

SMALL = {"depths": (1, 2, 1, 1), "dims": (8, 16, 24, 32)}
MARKS = {"poolformer_s12": pytest.mark.layout, "poolformer_m36": pytest.mark.long}


def random_images(*shape: int) -> Tensor:
    return Tensor(np.random.default_rng(3).standard_normal(shape).astype(np.float32))


@pytest.mark.parametrize("name", POOLFORMERS)
def test_parameters_are_the_official_ones(name: str) -> None:
    network = without_values(name)
    shapes = {official_name(p.name): list(p.shape) for p in network.get_parameters()}
    if name in SHAPES:
        assert shapes == SHAPES[name]
    assert len(shapes) == 10 * sum(VARIANTS[name].depths) + 12
    assert sum(p.size for p in network.get_parameters()) == VARIANTS[name].parameters


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=MARKS.get(name, pytest.mark.rare))
        for name in POOLFORMERS
        if f"{name}/logits" in OUTPUTS
    ],
)
def test_logits_are_the_official_ones(name: str, pynative_mode: None) -> None:
    check_logits(name)


@pytest.mark.layout
@pytest.mark.long
def test_logits_of_a_graph_are_the_official_ones() -> None:
    check_logits("poolformer_s12")


def check_logits(name: str) -> None:
    network = load_official_weights(without_values(name)).set_train(False)
    images = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    logits = network(Tensor(images)).asnumpy()
    np.testing.assert_allclose(logits, OUTPUTS[f"{name}/logits"], rtol=0, atol=1e-4)


def test_mindcv_builds_ours_and_keeps_its_others() -> None:
    script = """
import mindcv
from mindcv.models import registry
names, modules = mindcv.list_models(), mindcv.list_modules()
entries = dict(registry._model_entrypoints)
by_module = {m: mindcv.list_models(module=m) for m in modules}
import mindcv_poolformer
from mindcv_poolformer import models
ours = {*models.VARIANTS, *models.SEGMENTERS, *models.DETECTORS}
assert set(mindcv.list_models()) == set(names) | ours
assert {m: mindcv.list_models(module=m) for m in modules} == by_module
replaced = [n for n in names if registry._model_entrypoints[n] is not entries[n]]
assert replaced == sorted(mindcv_poolformer.models.POOLFORMERS), replaced
model = mindcv.create_model("poolformer_s12", num_classes=7)
assert isinstance(model, mindcv_poolformer.models.PoolFormer)
assert registry.get_pretrained_cfg("poolformer_m36")["crop_pct"] == 0.95
print("fine")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip().endswith("fine"), done.stderr


def test_unknown_keyword_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="layer_scale_value"):
        mindcv.create_model("poolformer_s12", layer_scale_value=1e-5)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (225, 160), (3, 3)])
@pytest.mark.parametrize("channels", [1, 4])
def test_other_sizes_and_channels(
    height: int, width: int, channels: int, pynative_mode: None
) -> None:
    network = PoolFormer(**SMALL, num_classes=5, in_channels=channels).set_train(False)
    logits = network(random_images(2, channels, height, width))
    assert logits.shape == (2, 5)
    assert np.isfinite(logits.asnumpy()).all()


def test_head_and_features_make_the_logits(pynative_mode: None) -> None:
    network = PoolFormer(**SMALL, num_classes=5).set_train(False)
    images = random_images(2, 3, 64, 96)
    features = network.forward_features(images)
    assert features.shape == (2, network.num_features, 2, 3)
    pooled = features.asnumpy().mean(axis=(2, 3))
    logits = pooled @ network.head.weight.asnumpy().T + network.head.bias.asnumpy()
    np.testing.assert_allclose(network.forward_head(features).asnumpy(), logits, atol=1e-6)
    np.testing.assert_allclose(network(images).asnumpy(), logits, atol=1e-6)


def test_reset_classifier(pynative_mode: None) -> None:
    network = PoolFormer(**SMALL, num_classes=5).set_train(False)
    names = [p.name for p in network.get_parameters()]
    network.reset_classifier(9)
    assert [p.name for p in network.get_parameters()] == names
    assert network(random_images(1, 3, 32, 32)).shape == (1, 9)
    assert network.num_classes == 9
    assert network.head.weight.asnumpy().std() == pytest.approx(0.02, rel=0.2)
    assert not network.head.bias.asnumpy().any()
    network.reset_classifier(0)
    assert network(random_images(1, 3, 32, 32)).shape == (1, 32)


@pytest.mark.layout
@pytest.mark.parametrize(
    ("indices", "mode"),
    [
        ((0, 1, 2, 3), ms.PYNATIVE_MODE),
        ((3,), ms.PYNATIVE_MODE),
        pytest.param((1, 2), ms.GRAPH_MODE, marks=pytest.mark.long),
    ],
)
def test_stage_maps(indices: tuple[int, ...], mode: int) -> None:
    ms.set_context(mode=mode)
    images = random_images(2, 3, 64, 96)
    network = PoolFormer(**SMALL, features_only=True, out_indices=indices).set_train(False)
    rng = np.random.default_rng(5)
    for i in indices:  # each stage has a norm of its own, under the official name
        norm = getattr(network, f"norm{2 * i}")
        norm.gamma.set_data(Tensor(rng.uniform(0.5, 2, SMALL["dims"][i]).astype(np.float32)))
        norm.beta.set_data(Tensor(rng.uniform(-1, 1, SMALL["dims"][i]).astype(np.float32)))
    maps = network(images)
    stages = op_by_op(network.stage_maps, images)
    assert len(maps) == len(indices)
    for i, found, info in zip(indices, maps, network.feature_info):
        stride = 4 * 2**i
        assert found.shape == (2, SMALL["dims"][i], 64 // stride, 96 // stride)
        assert info == {"chs": SMALL["dims"][i], "reduction": stride, "name": f"network.{2 * i}"}
        x = stages[i].asnumpy().astype(np.float64)
        norm = getattr(network, f"norm{2 * i}")
        centred = x - x.mean(axis=(1, 2, 3), keepdims=True)
        x = centred / np.sqrt(x.var(axis=(1, 2, 3), keepdims=True) + 1e-5)
        gamma, beta = (p.asnumpy()[:, None, None] for p in (norm.gamma, norm.beta))
        np.testing.assert_allclose(found.asnumpy(), x * gamma + beta, atol=1e-4)


def test_no_such_stage() -> None:
    with pytest.raises(ValueError, match=r"out_indices: found \(4,\)"):
        PoolFormer(**SMALL, features_only=True, out_indices=(4,))


def test_pooling_leaves_the_padding_out_of_the_mean(pynative_mode: None) -> None:
    x = random_images(2, 3, 5, 4)
    expected = np.empty(x.shape)
    pixels = x.asnumpy().astype(np.float64)
    for i in range(5):
        for j in range(4):
            window = pixels[:, :, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
            expected[:, :, i, j] = window.mean(axis=(2, 3)) - pixels[:, :, i, j]
    found = to_channels_first(Pooling()(from_channels_first(x)))
    np.testing.assert_allclose(found.asnumpy(), expected, atol=1e-6)


def test_initialisation_is_the_official_one() -> None:
    ms.set_seed(1)
    network = mindcv.create_model("poolformer_s12")
    values = {p.name: p.asnumpy() for p in network.get_parameters()}
    fc1 = values["network.6.1.mlp.fc1.weight"]
    assert fc1.std() == pytest.approx(0.02, rel=0.01)  # cut at two deviations it would be 0.0176
    assert abs(fc1.mean()) < 1e-4
    assert values["head.weight"].std() == pytest.approx(0.02, rel=0.01)
    for name in ("network.0.0.mlp.fc1.bias", "network.0.0.mlp.fc2.bias", "head.bias"):
        assert not values[name].any()
    for name in ("patch_embed.proj", "network.1.proj", "network.5.proj"):
        weight = values[f"{name}.weight"]
        bound = 1 / np.sqrt(np.prod(weight.shape[1:]))  # PyTorch's Conv2d
        for value in (weight, values[f"{name}.bias"]):
            assert np.abs(value).max() <= bound
            assert value.std() == pytest.approx(bound / np.sqrt(3), rel=0.15)
    assert (values["network.2.0.layer_scale_1"] == np.float32(1e-5)).all()
    m36 = mindcv.create_model("poolformer_m36")
    assert (m36.network[0][0].layer_scale_2.asnumpy() == np.float32(1e-6)).all()


def test_equal_seeds_give_equal_weights() -> None:
    def weights(seed: int) -> np.ndarray:
        ms.set_seed(seed)
        network = PoolFormer(**SMALL)
        return np.concatenate([p.asnumpy().ravel() for p in network.get_parameters()])

    assert (weights(1) == weights(1)).all()
    assert (weights(1) != weights(2)).any()


def test_drop_path_rises_linearly() -> None:
    network = without_values("poolformer_s12", drop_path_rate=0.1)
    np.testing.assert_allclose(network.drop_path_rates, np.linspace(0, 0.1, 12))
    keeps = [block.drop_path.keep for stage in network.network[::2] for block in stage]
    np.testing.assert_allclose(keeps, 1 - np.linspace(0, 0.1, 12))


def test_drop_path_scales_each_branch_of_each_sample(both_modes: str) -> None:
    network = load_official_weights(PoolFormer(**SMALL, num_classes=5)).set_train(False)
    images = random_images(3, 3, 32, 32)
    plain = op_by_op(network, images).asnumpy()
    scales = np.ones((5, 2, 3), np.float32)
    np.testing.assert_allclose(network(images, Tensor(scales)).asnumpy(), plain, atol=3e-6)
    scales[2, 1, 0] = 0.0  # the MLP branch of the third block, for the first sample
    changed = network(images, Tensor(scales)).asnumpy()
    assert np.abs(changed[0] - plain[0]).max() > 1e-3
    np.testing.assert_allclose(changed[1:], plain[1:], atol=3e-6)
    network.network[2][1].layer_scale_2.set_data(Tensor(np.zeros(16, np.float32)))
    found = op_by_op(network, images).asnumpy()
    np.testing.assert_allclose(found[0], changed[0], atol=3e-6)


@pytest.mark.long
def test_recomputed_blocks_give_the_same_gradients() -> None:
    def gradients(recomputes: bool) -> list[np.ndarray]:
        network = PoolFormer((1, 0, 0, 1), SMALL["dims"], num_classes=5)
        load_official_weights(network).set_train()
        if recomputes:
            network.recompute_blocks()

        def loss(x: Tensor) -> Tensor:
            return (network(x) ** 2).sum()

        slope = ms.grad(loss, None, network.trainable_params())
        return [gradient.asnumpy() for gradient in slope(random_images(2, 3, 32, 32))]

    for plain, recomputed in zip(gradients(False), gradients(True), strict=True):
        # Other chains of operators fuse, so the last digits differ.
        np.testing.assert_allclose(recomputed, plain, rtol=1e-4, atol=1e-6 * np.abs(plain).max())


def test_drop_path_draws_while_training_only(both_modes: str) -> None:
    drop = DropPath(0.25)
    x = Tensor(np.ones((4000, 1, 1, 1), np.float32))
    assert (drop.set_train(False)(x).asnumpy() == 1).all()
    drawn = drop.set_train(True)(x).asnumpy()
    assert set(np.unique(drawn)) == {np.float32(0), np.float32(1 / 0.75)}
    assert drawn.mean() == pytest.approx(1, abs=0.05)


def test_an_unknown_head_is_refused() -> None:
    with pytest.raises(ValueError, match="head: found 'pool', expected 'norm_pool' or 'pool_norm'"):
        PoolFormer(**SMALL, head="pool")


def test_head_that_pools_first(pynative_mode: None) -> None:
    network = load_official_weights(PoolFormer(**SMALL, num_classes=5, head="pool_norm"))
    network.set_train(False)
    images = random_images(2, 3, 64, 96)
    features = network.forward_features(images)
    np.testing.assert_array_equal(features.asnumpy(), network.stage_maps(images)[-1].asnumpy())
    pooled = features.asnumpy().astype(np.float64).mean(axis=(2, 3))
    centred = pooled - pooled.mean(axis=1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-6)
    normed = normed * network.norm.gamma.asnumpy() + network.norm.beta.asnumpy()
    logits = normed @ network.head.weight.asnumpy().T + network.head.bias.asnumpy()
    np.testing.assert_allclose(network.forward_head(features).asnumpy(), logits, atol=1e-5)
    np.testing.assert_allclose(network(images).asnumpy(), logits, atol=1e-5)


def test_layers_count_from_the_stem_to_the_head() -> None:
    network = without_values("poolformer_s12")
    layers = {
        "patch_embed.proj.weight": 0,
        "network.0.0.norm1.gamma": 1,
        "network.0.1.layer_scale_1": 2,
        "network.1.proj.weight": 3,
        "network.2.0.mlp.fc1.weight": 3,
        "network.4.5.mlp.fc2.bias": 10,
        "network.5.proj.bias": 11,
        "network.6.1.norm2.beta": 12,
        "norm.gamma": 13,
        "head.bias": 13,
    }
    assert {name: network.layer_of(name) for name in layers} == layers
    assert [name for name in layers if network.in_head(name)] == ["head.bias"]
