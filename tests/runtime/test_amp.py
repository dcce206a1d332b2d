"""Mixed precision op by op: graph mode is held against the official numbers in tests/models."""

from __future__ import annotations

from copy import deepcopy

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from mindcv_poolformer.models import MetaFormer
from mindcv_poolformer.models.parts.norms import GroupNorm
from mindcv_poolformer.runtime.amp import mixed_precision

pytestmark = pytest.mark.usefixtures("pynative_mode")


@pytest.mark.parametrize("level", ["O2", "O3"])
def test_a_norm_sums_squares_that_float16_cannot_hold(level: str) -> None:
    # 100,000 values of up to 20: their squares' sum is 1.3e7, and float16 ends at 65,504.
    x = np.random.default_rng(0).uniform(-20, 20, (2, 10, 100, 100)).astype(np.float32)
    axes = (1, 2, 3)
    expected = (x - x.mean(axes, keepdims=True)) / x.std(axes, keepdims=True)
    norm = mixed_precision(nn.SequentialCell(GroupNorm(10)), level)
    found = norm(Tensor(x.transpose(0, 2, 3, 1))).asnumpy().transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_products_are_in_float16() -> None:
    dense = nn.Dense(1, 1, weight_init="ones", has_bias=False)
    found = mixed_precision(nn.SequentialCell(dense), "O3")(Tensor([[1 + 2**-12]], ms.float32))
    assert found.asnumpy().tolist() == [[1.0]]  # float16 has 11 bits


def test_o3_gives_the_logits_and_gradients_of_o0() -> None:
    ms.set_seed(0)
    network = MetaFormer((1, 1, 1, 1), (16, 16, 16, 16), "identityformer", num_classes=10)
    images = Tensor(np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32))
    half = mixed_precision(deepcopy(network), "O3")

    logits, gradients = _logits_and_gradients(network, images)
    half_logits, half_gradients = _logits_and_gradients(half, images)
    np.testing.assert_allclose(half_logits, logits, atol=2e-3)
    # A share of the largest too: a scalar's gradient is a sum whose terms nearly cancel.
    largest = max(np.linalg.norm(gradient) for gradient in gradients)
    for found, expected in zip(half_gradients, gradients, strict=True):
        assert np.linalg.norm(found - expected) <= 0.02 * np.linalg.norm(expected) + 1e-3 * largest


def _logits_and_gradients(network: nn.Cell, images: Tensor) -> tuple[np.ndarray, list[np.ndarray]]:
    weights = tuple(network.trainable_params())
    gradients = ops.grad(lambda x: (network(x) ** 2).sum(), None, weights)(images)
    return network(images).asnumpy(), [gradient.asnumpy() for gradient in gradients]
