from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from mindspore import Tensor
from mindspore.amp import DynamicLossScaler, StaticLossScaler
from toy_network import ToyNetwork, toy_batch

from mindcv_poolformer.models.outputs import soft_cross_entropy
from mindcv_poolformer.runtime.amp import mixed_precision
from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.training.optimizer import AdamW
from mindcv_poolformer.training.overflow import OverflowWatch
from mindcv_poolformer.training.step import Labelled, Outcome, TrainStep

pytestmark = pytest.mark.usefixtures("pynative_mode")

GOOD, TARGETS = toy_batch(0, 2)
POISONED = GOOD * np.nan
HUGE = GOOD * 1e6  # more than float16 holds


def make_step(level: str, scaler: StaticLossScaler | DynamicLossScaler) -> TrainStep:
    network = ToyNetwork().set_train()
    optimizer = AdamW(network.trainable_params(), weight_decay=0.05)
    rates = Tensor(np.full(20, 1e-3, np.float32))
    return TrainStep(
        Labelled(mixed_precision(network, level), soft_cross_entropy), optimizer, rates, scaler
    ).set_train()


def run(step: TrainStep, watch: OverflowWatch, *batches: Tensor) -> None:
    """Take batches, and look once at how they went."""
    told = [step(images, TARGETS) for images in batches]
    watch.check(map(Outcome.read, told))


def test_nan_in_float32_stops_after_as_many_as_allowed() -> None:
    step = make_step("O0", StaticLossScaler(1.0))
    watch = OverflowWatch(step, limit=3)
    run(step, watch, GOOD, POISONED, POISONED, GOOD, POISONED, POISONED)
    before = [weight.asnumpy().copy() for weight in step.weights]
    with pytest.raises(UserError, match="3 updates in a row, up to step 7, at a loss scale of 1;"):
        run(step, watch, POISONED)
    for old, weight in zip(before, step.weights, strict=True):
        assert (old == weight.asnumpy()).all() and np.isfinite(old).all()


@pytest.mark.long
def test_at_the_floor_of_the_loss_scale_one_is_enough() -> None:
    step = make_step("O3", DynamicLossScaler(4.0, 2, 100))
    watch = OverflowWatch(step, limit=10)
    run(step, watch, GOOD, HUGE, HUGE)  # 4, 2, 1
    assert float(step.loss_scaler.scale_value) == 1.0
    with pytest.raises(UserError, match="3 updates in a row.* loss scale of 1, its floor"):
        run(step, watch, HUGE)


def outcomes(*bad_updates: int) -> list[Outcome]:
    return [Outcome(0.5, bad, 1.0, asked_to_stop=False) for bad in bad_updates]


def test_a_run_that_goes_on_counts_on() -> None:
    step = SimpleNamespace(
        bad_updates=2,
        loss_scaler=SimpleNamespace(scale_value=1.0),
        global_step=9,
        schedule=[1e-3] * 20,
        epoch_steps=20,
        accumulation_steps=1,
    )
    watch = OverflowWatch(step, limit=3)
    watch.check(outcomes(2, 2))
    with pytest.raises(UserError, match="3 updates in a row, up to step 13"):
        watch.check(outcomes(2, 3, 0))  # a good one after them does not make it good


@pytest.mark.parametrize(
    ("calls", "epoch_steps", "accumulation"), [(2, 2, 1), (6, 3, 2), (6, 6, 3)]
)
def test_a_short_run_that_only_overflowed_is_none(
    calls: int, epoch_steps: int, accumulation: int
) -> None:
    network = ToyNetwork().set_train()
    optimizer = AdamW(network.trainable_params(), weight_decay=0.05)
    rates = Tensor(np.full(calls, 1e-3, np.float32))
    sizes = {"epoch_steps": epoch_steps, "accumulation_steps": accumulation}
    step = TrainStep(
        Labelled(network, soft_cross_entropy), optimizer, rates, StaticLossScaler(1.0), **sizes
    ).set_train()
    watch = OverflowWatch(step, limit=100)
    run(step, watch, *[POISONED] * (calls - 1))
    with pytest.raises(UserError, match=f"updates in a row, up to step {calls}, at a loss"):
        run(step, watch, POISONED)
