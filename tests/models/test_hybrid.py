"""The hybrids against the official code's logits, and their parts against formulas."""

from __future__ import annotations

import mindcv
import mindspore as ms
import numpy as np
import pytest
from gradients import gradients_in_both_modes
from hybrids import HYBRID_OUTPUTS, HYBRIDS, hybrid_shapes
from mindspore import Parameter, Tensor
from official import load_official_weights, official_name, without_values
from op_by_op import op_by_op

from mindcv_poolformer.explaining.gradcam import GradCam
from mindcv_poolformer.models import VARIANTS, Hybrid, default_cfgs
from mindcv_poolformer.models.deploy import to_deploy
from mindcv_poolformer.models.hybrid import BiasedAttention, LayerNormChannel, SpatialFc
from mindcv_poolformer.models.variants import FAMILIES
from mindcv_poolformer.runtime.amp import mixed_precision

SMALL = {"depths": (1, 1, 1, 1), "dims": (32, 32, 64, 64)}
FIRST_AND_LAST = (1, 0, 0, 1)  # a block of either mixer
FAMILIES_OF_HYBRIDS = [family for family, parts in FAMILIES.items() if parts.hybrid]
OF_ALL_PARTS = ("metaformer_ppaa", "metaformer_ppff")


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def scatter(network: Hybrid) -> Hybrid:
    """Draw every parameter; what is folded lies far from 1, 0 and 1e-5, positions from 0."""
    load_official_weights(network)
    rng = np.random.default_rng(7)
    for parameter in network.get_parameters():
        leaf = parameter.name.rpartition(".")[2]
        if leaf in ("gamma", "beta", "pos_embed"):
            low, high = (0.5, 1.5) if leaf == "gamma" else (-1, 1)
            values = rng.uniform(low, high, parameter.shape)
            parameter.set_data(Tensor(values.astype(np.float32)))
    return network.set_train(False)


def small(family: str, **settings: object) -> Hybrid:
    return scatter(Hybrid(**{**SMALL, "family": family, "num_classes": 7, **settings}))


def test_the_table_has_the_official_hybrids() -> None:
    named = {n for n, v in VARIANTS.items() if v.family and not v.is_metaformer}
    assert named == set(HYBRIDS)
    crops = {name: default_cfgs[name]["crop_pct"] for name in HYBRIDS}
    assert sorted(name for name, crop in crops.items() if crop == 0.9) == [
        "metaformer_id_s12",
        "metaformer_pppf_s12_224",
    ]
    assert {0.9, 0.95} == set(crops.values())
    assert {name: VARIANTS[name].only_size for name in HYBRIDS} == {
        name: 224 if name.endswith("_224") else None for name in HYBRIDS
    }


def check_logits(name: str) -> None:
    network = without_values(name)
    shapes = {official_name(p.name): p.shape for p in network.get_parameters()}
    assert shapes == hybrid_shapes(name)
    assert sum(p.size for p in network.get_parameters()) == VARIANTS[name].parameters
    load_official_weights(network).set_train(False)
    images = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    logits = network(Tensor(images)).asnumpy()
    np.testing.assert_allclose(logits, HYBRID_OUTPUTS[f"{name}/logits"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.layout if "ppaa" in name else pytest.mark.long)
        for name in HYBRIDS
    ],
)
def test_parameters_and_logits_are_the_official_ones_op_by_op(
    name: str, pynative_mode: None
) -> None:
    check_logits(name)


@pytest.mark.layout
@pytest.mark.long
def test_logits_of_a_graph_are_the_official_ones() -> None:
    check_logits("metaformer_ppaa_s12_224")  # ppff's graph is compared with its operators below


def check_deploy_form(plain: Hybrid, level: str, allowed: float) -> None:
    """The plain and the deploy form at an AMP level against the plain one in float32."""
    images = Tensor(draw(2, 3, 224, 224))
    deployed = to_deploy(plain)
    logits = op_by_op(plain, images).asnumpy()
    assert np.ptp(logits) > 0.5
    for network in (plain, deployed):
        found = mixed_precision(network, level)(images).asnumpy()
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, logits, rtol=0, atol=allowed)


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(
            family, marks=pytest.mark.layout if family in OF_ALL_PARTS else pytest.mark.long
        )
        for family in FAMILIES_OF_HYBRIDS
    ],
)
def test_the_deploy_form_gives_the_same(family: str, pynative_mode: None) -> None:
    check_deploy_form(small(family), "O0", 1e-5)


@pytest.mark.layout
@pytest.mark.long
def test_o3_gives_the_same() -> None:
    check_deploy_form(small("metaformer_ppaa", depths=FIRST_AND_LAST), "O3", 0.02)


@pytest.mark.layout
@pytest.mark.long
@pytest.mark.parametrize("family", OF_ALL_PARTS)
def test_gradients_of_a_graph_are_those_op_by_op(family: str) -> None:
    network = small(family, depths=FIRST_AND_LAST)
    of_graph, of_operators = gradients_in_both_modes(network, draw(2, 3, 224, 224))
    largest = max(np.abs(gradient).max() for gradient in of_operators[2:])
    for one, other in zip(of_graph, of_operators, strict=True):  # of a beta before pooling it is 0
        scale = max(np.abs(other).max(), 1e-4 * largest)
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=1e-3 * scale)


def set_values(cell: ms.nn.Cell) -> list[np.ndarray]:
    """Draw a Cell's parameters; give them in float64."""
    parameters: list[Parameter] = list(cell.get_parameters())
    for number, parameter in enumerate(parameters):
        values = np.random.default_rng(number).standard_normal(parameter.shape)
        parameter.set_data(Tensor(values.astype(np.float32)))
    return [parameter.asnumpy().astype(np.float64) for parameter in parameters]


def test_layer_norm_over_channels(both_modes: str) -> None:
    x = draw(2, 5, 4, 8) * 3 + 100
    norm = LayerNormChannel(8)
    gamma, beta = set_values(norm)
    wide = x.astype(np.float64)
    centred = wide - wide.mean(-1, keepdims=True)
    expected = centred / np.sqrt(wide.var(-1, keepdims=True) + 1e-5) * gamma + beta
    np.testing.assert_allclose(norm(Tensor(x)).asnumpy(), expected, atol=2e-4)


def test_spatial_fc(both_modes: str) -> None:
    mixer = SpatialFc(3)
    (weight,) = set_values(mixer)
    x = draw(2, 3, 3, 5)
    expected = np.einsum("pq,nqc->npc", weight, x.reshape(2, 9, 5)).reshape(x.shape)
    np.testing.assert_allclose(mixer(Tensor(x)).asnumpy(), expected, atol=1e-5)


def test_attention_has_a_bias_behind_it(both_modes: str) -> None:
    mixer = BiasedAttention(32)
    values = set_values(mixer)
    x = draw(1, 2, 3, 32)
    before = mixer(Tensor(x)).asnumpy()
    mixer.proj.bias.set_data(mixer.proj.bias + 1.0)
    np.testing.assert_allclose(mixer(Tensor(x)).asnumpy(), before + 1, atol=1e-4)
    assert [value.shape for value in values] == [(96, 32), (32, 32), (32,)]


@pytest.mark.parametrize(
    ("family", "line"),
    [
        ("metaformer_ppff", "spatial fc: found a map of another size"),
        ("metaformer_pppa", "position embedding: found a map of another size"),
    ],
)
def test_one_size_alone(family: str, line: str, pynative_mode: None) -> None:
    network = small(family)
    for edge in (32, 256):  # at 32 px the last map has one place, which would broadcast
        with pytest.raises(ValueError, match=line):
            network(Tensor(draw(1, 3, edge, edge)))


def test_without_mixing_any_size_will_do(pynative_mode: None) -> None:
    network = small("metaformer_id", in_channels=1)
    logits = network(Tensor(draw(2, 1, 65, 40)))
    assert logits.shape == (2, 7)
    assert np.isfinite(logits.asnumpy()).all()


def test_features_and_heads(pynative_mode: None) -> None:
    family = "metaformer_ppaa"
    images = Tensor(draw(1, 3, 224, 224))
    network = small(family)
    maps = network.stage_maps(images)
    edges = [(32, 56), (32, 28), (64, 14), (64, 7)]
    assert [m.shape for m in maps] == [(1, c, edge, edge) for c, edge in edges]
    logits = network(images).asnumpy()
    for stage, activations in enumerate(maps):
        found = network.logits_after(activations, stage).asnumpy()
        np.testing.assert_allclose(found, logits, atol=1e-5)
    features = small(family, features_only=True, out_indices=(1, 3))
    assert [info["name"] for info in features.feature_info] == ["network.2", "network.7"]
    for found, activations, norm in zip(features(images), maps[1::2], features.feature_norms):
        expected = norm(activations.transpose(0, 2, 3, 1)).asnumpy().transpose(0, 3, 1, 2)
        np.testing.assert_allclose(found.asnumpy(), expected, atol=1e-5)
    cam = GradCam(network)
    maps = cam.maps(images.asnumpy(), [3])
    assert maps.shape == (1, 7, 7) and (maps >= 0).all() and maps.max() > 0
    network.reset_classifier(3)
    assert network(images).shape == (1, 3)


@pytest.mark.long
def test_drop_path_drops_branches_and_keeps_the_rest(pynative_mode: None) -> None:
    network = small("metaformer_pppa", drop_path_rate=0.4)
    keeps = [block.drop_path.keep for i in (0, 2, 4, 7) for block in network.network[i]]
    np.testing.assert_allclose(keeps, 1 - np.linspace(0, 0.4, 4))
    images = Tensor(draw(2, 3, 224, 224))
    plain = network(images).asnumpy()
    scales = np.ones((4, 2, 2), np.float32)
    scales[3, 0, 0] = 0  # attention in stage 4, for the first sample
    changed = network(images, Tensor(scales)).asnumpy()
    assert np.abs(changed[0] - plain[0]).max() > 1e-3
    np.testing.assert_allclose(changed[1], plain[1], atol=1e-5)
    network.network[7][0].layer_scale_1.set_data(Tensor(np.zeros(64, np.float32)))
    np.testing.assert_allclose(network(images).asnumpy()[0], changed[0], atol=1e-5)


def test_head_has_one_order() -> None:
    with pytest.raises(ValueError, match="head: found 'pool_norm', expected 'norm_pool' for a met"):
        small("metaformer_id", head="pool_norm")


def test_layers_count_from_the_stem_to_the_head() -> None:
    network = without_values("metaformer_ppaa_s12_224")
    layers = {
        "patch_embed.proj.weight": 0,
        "network.0.1.layer_scale_1": 2,
        "network.2.0.mlp.fc1.weight": 3,
        "network.3.proj.weight": 5,
        "network.4.pos_embed": 5,
        "network.5.0.token_mixer.qkv.weight": 5,
        "network.5.5.mlp.fc2.bias": 10,
        "network.6.proj.bias": 11,
        "network.7.1.norm2.beta": 12,
        "norm.gamma": 13,
        "head.bias": 13,
    }
    assert {name: network.layer_of(name) for name in layers} == layers


def test_initialisation_is_the_official_one() -> None:
    ms.set_seed(1)
    values = {
        p.name: p.asnumpy()
        for name in ("metaformer_ppaa_s12_224", "metaformer_ppff_s12_224")
        for p in mindcv.create_model(name).get_parameters()
    }
    for name in ("network.5.0.token_mixer.qkv", "network.4.0.token_mixer.fc", "head"):
        assert values[f"{name}.weight"].std() == pytest.approx(0.02, rel=0.02)
    bound = 1 / np.sqrt(np.prod(values["network.6.proj.weight"].shape[1:]))  # PyTorch's Conv2d
    std = values["network.6.proj.weight"].std()
    assert std == pytest.approx(bound / np.sqrt(3), rel=0.02)
    assert not values["network.4.pos_embed"].any()
    assert not values["network.5.0.token_mixer.proj.bias"].any()
    assert (values["network.7.0.layer_scale_1"] == np.float32(1e-5)).all()
