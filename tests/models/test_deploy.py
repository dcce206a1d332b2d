"""The deploy form against the model it comes from, and against the official logits."""

from __future__ import annotations

import numpy as np
import pytest
from mindspore import Tensor
from official import OUTPUTS, load_official_weights, without_values
from op_by_op import op_by_op

from mindcv_poolformer.models import PoolFormer
from mindcv_poolformer.models.deploy import to_deploy
from mindcv_poolformer.runtime.amp import mixed_precision

SMALL = {"depths": (1, 2, 1, 1), "dims": (8, 16, 24, 32), "num_classes": 7}
HEADS = ("norm_pool", "pool_norm")


def random_images(*shape: int) -> Tensor:
    return Tensor(np.random.default_rng(3).standard_normal(shape).astype(np.float32))


def scatter(network: PoolFormer) -> PoolFormer:
    """Draw every parameter; what is folded lies far from 1, 0 and 1e-5."""
    load_official_weights(network)  # layer scales about 0.3
    rng = np.random.default_rng(7)
    for parameter in network.get_parameters():
        if parameter.name.endswith((".gamma", ".beta")):
            low, high = (0.5, 1.5) if parameter.name.endswith("gamma") else (-1, 1)
            values = rng.uniform(low, high, parameter.shape)
            parameter.set_data(Tensor(values.astype(np.float32)))
    return network.set_train(False)


def small(**keywords: object) -> PoolFormer:
    return scatter(PoolFormer(**SMALL, **keywords))


def check(network: PoolFormer, images: Tensor) -> None:
    logits = op_by_op(network, images).asnumpy()
    assert np.ptp(logits) > 0.5
    found = to_deploy(network)(images).asnumpy()
    assert found.shape == logits.shape
    np.testing.assert_allclose(found, logits, rtol=0, atol=1e-4)


def test_a_whole_variant(pynative_mode: None) -> None:
    network = scatter(without_values("poolformer_s12", num_classes=7))
    check(network, random_images(2, 3, 64, 64))


@pytest.mark.layout
def test_official_logits(both_modes: str) -> None:
    network = load_official_weights(without_values("poolformer_s12"))
    images = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    found = to_deploy(network)(Tensor(images)).asnumpy()
    np.testing.assert_allclose(found, OUTPUTS["poolformer_s12/logits"], rtol=0, atol=1e-4)


@pytest.mark.layout
@pytest.mark.parametrize(
    ("height", "width", "head"),
    [(97, 97, "norm_pool"), (50, 81, "norm_pool"), (32, 32, "pool_norm"), (97, 81, "pool_norm")],
)
def test_heads_and_sizes(height: int, width: int, head: str, pynative_mode: None) -> None:
    check(small(head=head), random_images(3, 3, height, width))


def test_one_channel(pynative_mode: None) -> None:
    check(small(in_channels=1), random_images(2, 1, 40, 40))


@pytest.mark.layout
@pytest.mark.parametrize("head", HEADS)
def test_maps_with_a_mean_far_from_zero(head: str, both_modes: str) -> None:
    network = small(head=head)
    network.patch_embed.proj.bias.set_data(network.patch_embed.proj.bias + 100)
    check(network, random_images(2, 3, 50, 81))


def test_nothing_is_dropped(pynative_mode: None) -> None:
    network = small(drop_rate=0.5, drop_path_rate=0.5)
    images = random_images(2, 3, 32, 32)
    logits = network(images).asnumpy()
    deployed = to_deploy(network.set_train(True))
    np.testing.assert_allclose(deployed(images).asnumpy(), logits, rtol=0, atol=1e-4)


@pytest.mark.layout
@pytest.mark.long
@pytest.mark.parametrize("head", HEADS)
def test_float16(head: str) -> None:
    """Within 1 % of the logits' range; two runs in float16 were measured 0.2 % apart at most."""
    images = random_images(2, 3, 64, 64)
    exact = op_by_op(small(head=head), images).asnumpy()
    logits = mixed_precision(small(head=head), "O3")(images).asnumpy()
    found = mixed_precision(to_deploy(small(head=head)), "O3")(images).asnumpy()
    assert found.dtype == np.float32
    assert (found != exact).any()
    for truth in (logits, exact):
        np.testing.assert_allclose(found, truth, rtol=0, atol=0.01 * np.ptp(exact))


def test_the_model_is_left_alone(pynative_mode: None) -> None:
    network = small().set_train(True)
    before = {p.name: p.asnumpy().copy() for p in network.get_parameters()}
    deployed = to_deploy(network)
    for parameter in deployed.get_parameters():
        parameter.set_data(Tensor(np.zeros(parameter.shape, np.float32)), slice_shape=True)
    mixed_precision(deployed, "O3")(random_images(1, 3, 32, 32))
    after = {p.name: p.asnumpy() for p in network.get_parameters()}
    assert list(after) == list(before)
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values)
    assert network.training
    assert all(cell.training for _, cell in network.cells_and_names())


@pytest.mark.parametrize("keywords", [{"features_only": True}, {"num_classes": 0}])
def test_without_classifier_is_refused(keywords: dict[str, int]) -> None:
    network = PoolFormer(**{**SMALL, **keywords})
    with pytest.raises(ValueError, match="to_deploy: found a network without classifier"):
        to_deploy(network)
