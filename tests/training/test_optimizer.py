from __future__ import annotations

from dataclasses import replace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor
from official import load_official_weights
from toy_network import ToyNetwork, toy_batch

from mindcv_poolformer.config import OptimizerConfig, Recipe, SystemConfig
from mindcv_poolformer.data.mix import smoothed_targets
from mindcv_poolformer.models import MetaFormer, PoolFormer, StagedClassifier
from mindcv_poolformer.runtime.checkpoint_file import fill
from mindcv_poolformer.tasks import Classification
from mindcv_poolformer.training.checkpoint import training_state
from mindcv_poolformer.training.optimizer import AdamW, Lamb
from mindcv_poolformer.training.step import Outcome, TrainStep, build_step


def test_updates_are_those_of_the_paper(both_modes: str) -> None:
    """Algorithm 2 of arXiv 1711.05101 in float64; PyTorch's AdamW computes the same."""
    rng = np.random.default_rng(0)
    start = [rng.standard_normal((3, 4)), rng.standard_normal(5)]
    parameters = [Parameter(Tensor(w.astype(np.float32)), f"w{i}") for i, w in enumerate(start)]
    eps = 1e-2  # large enough that its place in the formula tells
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


def test_lamb_is_its_formula(both_modes: str) -> None:
    """Algorithm 2 of arXiv 1904.00962 in float64; timm 1.0.31's Lamb computes the same.

    In timm nothing but what decays is scaled to the norm of its weight, and that only if neither
    norm is 0.
    """
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((3, 4)), 30 * rng.standard_normal((2, 3)), np.zeros((2, 2))]
    weights.append(rng.standard_normal(5))
    parameters = [Parameter(Tensor(w.astype(np.float32)), f"w{i}") for i, w in enumerate(weights)]
    scales = (1.0, 0.5, 1.0, 0.5)
    optimizer = Lamb(parameters, weight_decay=0.1, betas=(0.8, 0.95), eps=1e-6, lr_scales=scales)
    first = [np.zeros_like(w) for w in weights]
    second = [np.zeros_like(w) for w in weights]
    for t, lr in enumerate((0.1, 0.02, 0.3), start=1):
        grads = [rng.standard_normal(w.shape) for w in weights]
        optimizer(tuple(Tensor(g.astype(np.float32)) for g in grads), Tensor(np.float32(lr)))
        for i, g in enumerate(grads):
            first[i] = 0.8 * first[i] + 0.2 * g
            second[i] = 0.95 * second[i] + 0.05 * g**2
            unbiased = first[i] / (1 - 0.8**t), second[i] / (1 - 0.95**t)
            update = unbiased[0] / (np.sqrt(unbiased[1]) + 1e-6)
            if weights[i].ndim > 1:
                update += 0.1 * weights[i]
                norm = np.linalg.norm(weights[i])
                update *= norm / np.linalg.norm(update) if norm else 1
            weights[i] = weights[i] - lr * scales[i] * update
    for parameter, expected in zip(parameters, weights, strict=True):
        np.testing.assert_allclose(parameter.asnumpy(), expected, rtol=2e-5, atol=1e-6)


def test_lamb_leaves_a_weight_where_it_is_without_any_update(pynative_mode: None) -> None:
    weight = Parameter(Tensor(np.zeros((2, 2), np.float32)), "w")
    Lamb([weight], weight_decay=0.1)((Tensor(np.zeros((2, 2), np.float32)),), Tensor(0.1))
    assert (weight.asnumpy() == 0).all()


LR = 0.01
LAMB = OptimizerConfig(opt="lamb", eps=1e-6, clip_grad=True, clip_value=1.0)


def tiny_caformer() -> MetaFormer:
    return MetaFormer((1, 1, 1, 1), (32, 32, 64, 64), "caformer", num_classes=5)


def lamb_step(
    system: SystemConfig | None = None, network: StagedClassifier | None = None, **settings: object
) -> TrainStep:
    """A step of LAMB as a recipe asks for it."""
    network = network or ToyNetwork()
    load_official_weights(network).set_train()
    recipe = Recipe(system=system or SystemConfig(), optimizer=replace(LAMB, **settings))
    with_loss = Classification.with_loss(recipe)
    return build_step(recipe, network, with_loss, np.full(8, LR, np.float32), 8, 1)


def batch(seed: int, size: int = 4) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((size, 3, 32, 32)).astype(np.float32)
    return Tensor(images), Tensor(smoothed_targets(rng.integers(5, size=size), 5, 0.1))


def values(parameters: list[Parameter]) -> dict[str, np.ndarray]:
    return {p.name: p.asnumpy().copy() for p in parameters}


@pytest.mark.parametrize("settings", [{"layer_decay": 0.5}, {"freeze_backbone": True}])
def test_lamb_moves_each_matrix_by_a_share_of_its_norm(settings: dict, pynative_mode: None) -> None:
    """That is what the trust ratio is for, whatever the gradient."""
    step = lamb_step(network=tiny_caformer(), **settings)
    network = step.network.network
    before = values(network.get_parameters())
    step(*batch(0))
    for parameter in network.get_parameters():
        old, new = before[parameter.name], parameter.asnumpy()
        if settings.get("freeze_backbone") and not parameter.name.startswith("head."):
            assert (new == old).all(), parameter.name
        elif old.ndim > 1:
            depth = 5 - network.layer_of(parameter.name)  # four blocks and the stem below the head
            share = LR * settings.get("layer_decay", 1.0) ** depth
            moved = np.linalg.norm(new - old) / np.linalg.norm(old)
            assert moved == pytest.approx(share, rel=1e-3), parameter.name


@pytest.mark.parametrize(
    "mode", [ms.PYNATIVE_MODE, pytest.param(ms.GRAPH_MODE, marks=pytest.mark.long)]
)
def test_lamb_trains_accumulates_and_skips(mode: int) -> None:
    """An overflow changes nothing; two batches count as one of both."""
    large = lamb_step(ema=True, ema_decay=0.9)
    dynamic = SystemConfig(loss_scale=4.0, loss_scale_type="dynamic")
    small = lamb_step(dynamic, ema=True, ema_decay=0.9, gradient_accumulation_steps=2)
    images, targets = toy_batch(0)
    losses = []
    ms.set_context(mode=ms.PYNATIVE_MODE)
    for _ in range(3):
        losses.append(Outcome.read(large(images, targets)).loss)
    assert losses[2] < losses[0]
    ms.set_context(mode=mode)
    for part in (0, 1, 0, 1, 0, 1):
        small(images[part::2], targets[part::2])
    for found, expected in zip(small.weights, large.weights, strict=True):
        np.testing.assert_allclose(found.asnumpy(), expected.asnumpy(), atol=2e-5)
    optimizer = small.optimizer
    kept = [*small.weights, *small.ema, *optimizer.exp_avg, *optimizer.exp_avg_sq, optimizer.step]
    before = values(kept)
    for _ in range(2):
        small(images[:2] * np.inf, targets[:2])
    assert int(small.skipped_updates) == 1
    for name, value in values(kept).items():
        assert (value == before[name]).all(), name


@pytest.mark.long
def test_lamb_goes_on_from_a_checkpoint_as_if_nothing_had_been(pynative_mode: None) -> None:
    whole, first, second = lamb_step(), lamb_step(), lamb_step()
    for seed in range(4):
        whole(*toy_batch(seed))
    for seed in range(2):
        first(*toy_batch(seed))
    fill({w.name: w for w in second.network_weights}, {w.name: w for w in first.weights}, "test")
    state = training_state(first)
    assert {"exp_avg.head.weight", "exp_avg_sq.stem.weight"} <= set(state)
    fill(training_state(second), state, "test")
    for seed in range(2, 4):
        second(*toy_batch(seed))
    for found, expected in zip(second.weights, whole.weights, strict=True):
        assert found.asnumpy().tobytes() == expected.asnumpy().tobytes(), found.name


@pytest.mark.long
def test_lamb_under_mixed_precision(pynative_mode: None) -> None:
    system = SystemConfig(amp_level="O3", loss_scale=1024.0, loss_scale_type="dynamic")
    mixed, full = lamb_step(system), lamb_step()
    for seed in range(2):
        expected, found = (Outcome.read(step(*toy_batch(seed))).loss for step in (full, mixed))
        assert found == pytest.approx(expected, rel=1e-2) and found != expected


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


def test_random_mixing_is_no_ones_to_train() -> None:
    network = MetaFormer((1, 1, 1, 1), (32, 32, 32, 32), "randformer", num_classes=5)
    trained = {p.name for p in AdamW(network.trainable_params(), weight_decay=0.05).parameters}
    there = {p.name for p in network.get_parameters()}
    mixing = {f"stages.{i}.0.token_mixer.random_matrix" for i in (2, 3)}
    assert there - trained == mixing
