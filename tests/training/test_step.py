from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from mindspore.amp import DynamicLossScaler, StaticLossScaler
from official import OUTPUTS, load_official_weights, official_name, without_values
from toy_network import ToyNetwork, toy_batch

from mindcv_poolformer.config import OptimizerConfig, Recipe
from mindcv_poolformer.data.mix import smoothed_targets
from mindcv_poolformer.models import PoolFormer
from mindcv_poolformer.models.outputs import soft_cross_entropy
from mindcv_poolformer.runtime.amp import mixed_precision
from mindcv_poolformer.tasks import Classification
from mindcv_poolformer.training.optimizer import AdamW
from mindcv_poolformer.training.step import Labelled, Outcome, TrainStep, build_step

# What a graph would add is its compilation: the tests in both modes show that it does the same.
op_by_op = pytest.mark.usefixtures("pynative_mode")
LR = 1e-2


def tiny_poolformer(*depths: int) -> PoolFormer:
    return load_official_weights(PoolFormer(depths, (4, 8, 8, 16), num_classes=5))


def step_of(
    network: nn.Cell, level: str = "O0", scaler: object | None = None, **settings: object
) -> TrainStep:
    network.set_train()
    optimizer = AdamW(network.trainable_params(), weight_decay=0.05)
    rates = Tensor(np.full(20, LR, np.float32))
    runner = mixed_precision(network, level)
    return TrainStep(
        Labelled(runner, soft_cross_entropy),
        optimizer,
        rates,
        scaler or StaticLossScaler(1.0),
        **settings,
    ).set_train()


def toy_step(level: str = "O0", scaler: object | None = None, **settings: object) -> TrainStep:
    return step_of(ToyNetwork(), level, scaler, **settings)


def images_of_poolformer(seed: int, size: int = 4) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((size, 3, 32, 32)).astype(np.float32)
    return Tensor(images), Tensor(smoothed_targets(rng.integers(5, size=size), 5, 0.1))


def weights(step: TrainStep) -> np.ndarray:
    """All trained weights."""
    return np.concatenate([w.asnumpy().ravel() for w in step.weights])


@pytest.mark.long
@pytest.mark.layout
@pytest.mark.usefixtures("graph_kernels")
def test_five_steps_follow_the_official_code() -> None:
    network = load_official_weights(without_values("poolformer_s12")).set_train()
    images = Tensor(np.random.default_rng(1).standard_normal((4, 3, 64, 64)).astype(np.float32))
    targets = Tensor(smoothed_targets(np.array([1, 10, 100, 999]), 1000, 0.1))

    optimizer = AdamW(network.trainable_params(), weight_decay=0.05)
    rates = Tensor(np.full(5, 1e-4, np.float32))
    step = TrainStep(
        Labelled(network, soft_cross_entropy), optimizer, rates, StaticLossScaler(1.0)
    ).set_train()
    losses = [Outcome.read(step(images, targets)).loss]
    norms = {  # the first moment after one step is (1 - beta1) times the gradient
        official_name(p.name): np.linalg.norm(m.asnumpy().astype(np.float64) / 0.1)
        for p, m in zip(step.weights, optimizer.exp_avg, strict=True)
    }
    keys = OUTPUTS["poolformer_s12/train/grad_norm_keys"]
    expected = OUTPUTS["poolformer_s12/train/grad_norms"]
    # norm1's bias cancels in pool(x) - x: its gradients are zero but for rounding
    np.testing.assert_allclose([norms[key] for key in keys], expected, rtol=1e-3, atol=1e-6)
    assert (expected > 1e-6).sum() == 132 - 12
    losses += [Outcome.read(step(images, targets)).loss for _ in range(4)]
    np.testing.assert_allclose(losses, OUTPUTS["poolformer_s12/train/loss"], rtol=1e-3)


@op_by_op
def test_accumulated_batches_equal_one_large_batch() -> None:
    images, targets = toy_batch(0, size=6)
    large = toy_step()
    small = toy_step(accumulation_steps=2)
    for _ in range(3):
        large(images, targets)
        for part in range(2):
            small(images[part::2], targets[part::2])
    assert int(small.global_step) == 3 * 2
    assert int(small.optimizer.step) == 3
    np.testing.assert_allclose(weights(small), weights(large), atol=1e-6)


def test_the_last_step_of_an_epoch_updates(both_modes: str) -> None:
    """Two epochs of five steps of two images, in updates of three and of the two that are left."""
    images, targets = toy_batch(0, size=10)
    parts = [slice(2 * number, 2 * number + 2) for number in range(5)]
    small = toy_step(accumulation_steps=3, epoch_steps=5)
    ends = []
    for part in 2 * parts:
        small(images[part], targets[part])
        ends.append(small.between_updates(int(small.global_step)))
    assert ends == 2 * [False, False, True, False, True]
    ms.set_context(mode=ms.PYNATIVE_MODE)
    large = toy_step()
    for part in 2 * [slice(0, 6), slice(6, 10)]:
        large(images[part], targets[part])
    np.testing.assert_allclose(weights(small), weights(large), atol=1e-6)
    assert all((total.asnumpy() == 0).all() for total in small.grad_sum)


@op_by_op
def test_weights_stand_still_between_updates() -> None:
    step = toy_step(accumulation_steps=2)
    before = weights(step)
    step(*toy_batch(0))
    assert (weights(step) == before).all()
    step(*toy_batch(1))
    assert (weights(step) != before).any()


@op_by_op
def test_clipping_and_average_follow_updates_not_batches() -> None:
    images, targets = toy_batch(0)
    settings = {"clip_norm": 0.1, "ema_decay": 0.9}
    large, small = toy_step(**settings), toy_step(accumulation_steps=2, **settings)
    large(images, targets)
    small(images[::2], targets[::2])
    assert all((a.asnumpy() == w.asnumpy()).all() for a, w in zip(small.ema, small.weights))
    small(images[1::2], targets[1::2])
    np.testing.assert_allclose(weights(small), weights(large), atol=1e-6)
    for found, expected in zip(small.ema, large.ema):
        np.testing.assert_allclose(found.asnumpy(), expected.asnumpy(), atol=1e-6)


@op_by_op
def test_an_overflow_spoils_the_batches_of_its_own_update_alone() -> None:
    step = toy_step(accumulation_steps=2)
    before = weights(step)
    images, targets = toy_batch(0)
    step(images * np.nan, targets)
    step(images, targets)
    assert (weights(step) == before).all()
    assert int(step.skipped_updates) == 1
    for _ in range(2):
        step(images, targets)
    assert (weights(step) != before).any() and np.isfinite(weights(step)).all()
    assert int(step.skipped_updates) == 1


def test_clipped_gradients_have_the_norm_asked_for(both_modes: str) -> None:
    """The first moment after one step is (1 - beta1) times the clipped gradient."""
    plain, clipped = toy_step(), toy_step(clip_norm=0.1)
    clipped(*toy_batch(0))
    ms.set_context(mode=ms.PYNATIVE_MODE)
    plain(*toy_batch(0))
    full, cut = (
        np.concatenate([m.asnumpy().ravel() for m in s.optimizer.exp_avg]) / 0.1
        for s in (plain, clipped)
    )
    assert np.linalg.norm(full) > 0.2
    assert np.linalg.norm(cut) == pytest.approx(0.1, rel=1e-3)
    np.testing.assert_allclose(cut, full * (0.1 / np.linalg.norm(full)), rtol=1e-3, atol=1e-8)


@op_by_op
def test_gradients_below_the_bound_are_left_alone() -> None:
    plain, clipped = toy_step(), toy_step(clip_norm=1e3)
    for step in (plain, clipped):
        step(*toy_batch(0))
    np.testing.assert_allclose(weights(clipped), weights(plain), atol=1e-7)


@op_by_op
def test_ema_is_its_formula() -> None:
    step = toy_step(ema_decay=0.9)
    average = weights(step).astype(np.float64)
    for seed in range(4):
        step(*toy_batch(seed))
        average = 0.9 * average + 0.1 * weights(step)
    found = np.concatenate([a.asnumpy().ravel() for a in step.ema])
    np.testing.assert_allclose(found, average, atol=1e-6)
    assert np.abs(found - weights(step)).max() > 1e-3


@op_by_op
def test_the_schedule_sets_each_step() -> None:
    network = ToyNetwork().set_train()
    optimizer = AdamW(network.trainable_params(), weight_decay=0.0)
    step = TrainStep(
        Labelled(network, soft_cross_entropy),
        optimizer,
        Tensor(np.array([0.0, LR], np.float32)),
        StaticLossScaler(1.0),
    )
    before = weights(step)
    step(*toy_batch(0))
    assert (weights(step) == before).all()
    step(*toy_batch(0))
    # Adam moves each weight by about lr while the gradient keeps its sign
    assert np.abs(weights(step) - before).max() == pytest.approx(LR, rel=0.05)


@op_by_op
def test_the_loss_scale_leaves_the_update_as_it_is() -> None:
    plain, scaled = toy_step(), toy_step(scaler=StaticLossScaler(1024.0))
    losses = [Outcome.read(step(*toy_batch(0))).loss for step in (plain, scaled)]
    assert losses[0] == losses[1]
    np.testing.assert_allclose(weights(scaled), weights(plain), atol=2e-5)


def test_an_overflow_is_skipped_and_halves_the_scale(both_modes: str) -> None:
    """A poisoned batch: pixels so large that float16 overflows. What calls tell is read late."""
    step = toy_step("O3", DynamicLossScaler(1024.0, 2, 2), ema_decay=0.9)
    told = [step(*toy_batch(0))]
    state = [weights(step)]
    state += [p.asnumpy() for p in (*step.optimizer.exp_avg, *step.optimizer.exp_avg_sq, *step.ema)]
    images, targets = toy_batch(1)
    told.append(step(images * 1e6, targets))
    assert (int(step.skipped_updates), int(step.bad_updates)) == (1, 1)
    assert float(step.loss_scaler.scale_value) == 512.0
    after = [weights(step)]
    after += [p.asnumpy() for p in (*step.optimizer.exp_avg, *step.optimizer.exp_avg_sq, *step.ema)]
    for old, new in zip(state, after, strict=True):
        assert (old == new).all()
    assert int(step.optimizer.step) == 1
    assert int(step.global_step) == 2
    step.ask_to_stop()
    for seed in (2, 3):  # two good updates in a row double it
        told.append(step(*toy_batch(seed)))
    assert (int(step.skipped_updates), int(step.bad_updates)) == (1, 0)
    assert float(step.loss_scaler.scale_value) == 1024.0
    assert np.isfinite(weights(step)).all()
    outcomes = list(map(Outcome.read, told))
    assert [outcome.bad_updates for outcome in outcomes] == [0, 1, 0, 0]
    assert [outcome.loss_scale for outcome in outcomes] == [1024, 512, 512, 1024]
    assert [outcome.asked_to_stop for outcome in outcomes] == [False, False, True, True]
    assert [bool(np.isfinite(outcome.loss)) for outcome in outcomes] == [True, False, True, True]
    assert len({outcome.loss for outcome in outcomes}) == 4


@op_by_op
def test_an_overflow_is_applied_where_skipping_is_off() -> None:
    step = toy_step("O3", skip_overflow=False)
    images, targets = toy_batch(1)
    step(images * 1e6, targets)
    assert not np.isfinite(weights(step)).all()


@pytest.fixture(scope="module")
def losses_in_float32() -> list[float]:
    """Of two steps of the small PoolFormer, in PyNative mode."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    step = step_of(tiny_poolformer(1, 0, 0, 1))
    return [Outcome.read(step(*images_of_poolformer(seed))).loss for seed in range(2)]


@pytest.mark.layout
@pytest.mark.parametrize(
    ("level", "mode"),
    [
        ("O3", ms.PYNATIVE_MODE),
        pytest.param("O3", ms.GRAPH_MODE, marks=pytest.mark.long),
        pytest.param("O2", ms.PYNATIVE_MODE, marks=pytest.mark.long),
        pytest.param("auto", ms.PYNATIVE_MODE, marks=pytest.mark.long),
    ],
)
def test_mixed_precision_trains_as_float32_does(
    level: str, mode: int, losses_in_float32: list[float]
) -> None:
    """The second loss tells of the first update."""
    ms.set_context(mode=mode)
    mixed = step_of(tiny_poolformer(1, 0, 0, 1), level, StaticLossScaler(1024.0))
    for seed, expected in enumerate(losses_in_float32):
        found = Outcome.read(mixed(*images_of_poolformer(seed))).loss
        assert found == pytest.approx(expected, rel=1e-2)
        assert found != expected
    assert {w.dtype for w in mixed.weights} == {ms.float32}


@op_by_op
@pytest.mark.parametrize(("layer_decay", "frozen"), [(0.5, False), (1.0, True)])
def test_fine_tuning_moves_the_layers_it_should(layer_decay: float, frozen: bool) -> None:
    """Adam's first step is about the learning rate, whatever the gradient's size."""
    settings = OptimizerConfig(weight_decay=0.0, layer_decay=layer_decay, freeze_backbone=frozen)
    network = tiny_poolformer(1, 1, 1, 1).set_train()
    before = {p.name: p.asnumpy().copy() for p in network.get_parameters()}
    step = build_step(
        Recipe(optimizer=settings),
        network,
        Classification.with_loss(Recipe()),
        np.array([LR], np.float32),
        1,
        1,
    )
    step(*images_of_poolformer(0))
    moved = {p.name: np.abs(p.asnumpy() - before[p.name]).max() for p in network.get_parameters()}
    assert moved["head.weight"] == pytest.approx(LR, rel=0.01)
    if frozen:
        assert {name for name, distance in moved.items() if distance} == {
            "head.weight",
            "head.bias",
        }
    else:  # five layers below the head's: four blocks and the stem
        assert moved["network.6.0.mlp.fc1.weight"] == pytest.approx(LR / 2, rel=0.01)
        assert moved["network.2.0.mlp.fc1.weight"] == pytest.approx(LR / 8, rel=0.01)
        assert moved["patch_embed.proj.weight"] == pytest.approx(LR / 32, rel=0.01)
