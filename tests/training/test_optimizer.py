from __future__ import annotations

import numpy as np
import pytest
from mindspore import Parameter, Tensor

from mindcv_poolformer.models import PoolFormer
from mindcv_poolformer.training.optimizer import AdamW


@pytest.mark.parametrize("eps", [1e-8, 1e-2])
def test_updates_are_those_of_the_paper(eps: float, both_modes: str) -> None:
    """Algorithm 2 of arXiv 1711.05101 in float64; PyTorch's AdamW computes the same."""
    rng = np.random.default_rng(0)
    start = [rng.standard_normal((3, 4)), rng.standard_normal(5)]
    parameters = [Parameter(Tensor(w.astype(np.float32)), f"w{i}") for i, w in enumerate(start)]
    optimizer = AdamW(parameters, weight_decay=0.1, betas=(0.8, 0.95), eps=eps)
    weights = [w.copy() for w in start]
    first = [np.zeros_like(w) for w in start]
    second = [np.zeros_like(w) for w in start]
    for t, lr in enumerate((0.1, 0.02, 0.3), start=1):
        grads = [rng.standard_normal(w.shape) for w in start]
        optimizer(tuple(Tensor(g.astype(np.float32)) for g in grads), Tensor(np.float32(lr)))
        for i, g in enumerate(grads):
            first[i] = 0.8 * first[i] + 0.2 * g
            second[i] = 0.95 * second[i] + 0.05 * g**2
            decay = 0.1 if i == 0 else 0.0  # the vector does not decay
            weights[i] *= 1 - lr * decay
            unbiased = first[i] / (1 - 0.8**t), second[i] / (1 - 0.95**t)
            weights[i] -= lr * unbiased[0] / (np.sqrt(unbiased[1]) + eps)
    for parameter, expected in zip(parameters, weights, strict=True):
        np.testing.assert_allclose(parameter.asnumpy(), expected, rtol=2e-5, atol=1e-6)


def test_the_official_groups() -> None:
    network = PoolFormer((1, 1, 1, 1), (4, 8, 8, 16))
    parameters = network.trainable_params()
    decayed = {
        p.name
        for p, decay in zip(parameters, AdamW(parameters, weight_decay=0.05).decays, strict=True)
        if decay
    }
    convolutions = {"patch_embed.proj", *(f"network.{i}.proj" for i in (1, 3, 5))}
    mlps = {f"network.{i}.0.mlp.{fc}" for i in (0, 2, 4, 6) for fc in ("fc1", "fc2")}
    assert decayed == {f"{name}.weight" for name in (convolutions | mlps | {"head"})}
    everything = AdamW(parameters, weight_decay=0.05, exempt_1d=False)
    assert set(everything.decays) == {0.05}
