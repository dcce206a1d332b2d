from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from mindcv.scheduler import create_scheduler

from mindcv_poolformer.config import ScheduleConfig
from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.training.schedule import learning_rates, peak_learning_rate

OFFICIAL = ScheduleConfig(
    epoch_size=310,
    lr_base=1e-3,
    min_lr=1e-5,
    warmup_lr=1e-6,
    warmup_epochs=5,
    decay_epochs=300,
    warmup_prefix=False,
    lr_epoch_stair=True,
)


def test_the_official_table() -> None:
    """Values of the official recipe at a global batch of 1024."""
    rates = learning_rates(OFFICIAL, peak_learning_rate(OFFICIAL, 1024), 3)
    assert rates.shape == (930,)
    table = {0: 1e-6, 1: 2.008e-4, 4: 8.002e-4, 5: 9.99322e-4, 150: 5.05e-4, 299: 1.0027e-5}
    table |= {300: 1e-5, 309: 1e-5}
    for epoch, lr in table.items():
        np.testing.assert_allclose(rates[3 * epoch : 3 * epoch + 3], lr, rtol=2e-5)


def test_lr_base_scales_with_the_global_batch() -> None:
    assert peak_learning_rate(OFFICIAL, 4096) == pytest.approx(4e-3)
    assert peak_learning_rate(OFFICIAL, 256) == pytest.approx(2.5e-4)
    assert peak_learning_rate(ScheduleConfig(lr=5e-4), 4096) == 5e-4


def test_a_peak_below_the_end_of_the_decay_is_refused() -> None:
    learning_rates(OFFICIAL, peak_learning_rate(OFFICIAL, 16), 3)
    with pytest.raises(
        UserError, match="min_lr: found 1e-05 with a peak learning rate of 7.81e-06"
    ):
        learning_rates(OFFICIAL, peak_learning_rate(OFFICIAL, 8), 3)
    constant = replace(OFFICIAL, scheduler="constant")
    learning_rates(constant, peak_learning_rate(constant, 8), 3)  # has no end


@pytest.mark.parametrize("stair", [False, True])
@pytest.mark.parametrize("name", ["cosine_decay", "constant"])
def test_mindcv_recipes_mean_what_they_mean_there(name: str, stair: bool) -> None:
    schedule = ScheduleConfig(
        scheduler=name,
        epoch_size=12,
        lr=5e-4,
        min_lr=1e-6,
        warmup_epochs=3,
        decay_epochs=7,
        lr_epoch_stair=stair,
    )
    theirs = create_scheduler(
        7,
        scheduler=name,
        lr=5e-4,
        min_lr=1e-6,
        warmup_epochs=3,
        decay_epochs=7,
        num_epochs=12,
        lr_epoch_stair=stair,
    )
    np.testing.assert_allclose(learning_rates(schedule, 5e-4, 7), theirs, rtol=1e-5, atol=1e-10)


def test_the_cosine_fills_what_the_warm_up_leaves() -> None:
    given = ScheduleConfig(epoch_size=10, lr=1e-3, warmup_epochs=2, decay_epochs=8)
    left_out = ScheduleConfig(epoch_size=10, lr=1e-3, warmup_epochs=2)
    np.testing.assert_array_equal(learning_rates(given, 1e-3, 4), learning_rates(left_out, 1e-3, 4))


def test_the_polynomial_is_mmcvs() -> None:
    """lr (1 - i / 40000)^0.9 at iteration i, the schedule of Semantic FPN on ADE20K."""
    schedule = ScheduleConfig(
        scheduler="polynomial_decay",
        epoch_size=10,
        epoch_steps=4000,
        lr=2e-4,
        min_lr=0.0,
        warmup_epochs=0,
        decay_rate=0.9,
    )
    rates = learning_rates(schedule, 2e-4, 4000)
    assert rates.shape == (40_000,)
    for i in (0, 1, 12_345, 39_999):
        assert rates[i] == pytest.approx(2e-4 * (1 - i / 40_000) ** 0.9, rel=1e-5)
    lifted = learning_rates(replace(schedule, min_lr=1e-5), 2e-4, 4000)
    assert lifted[20_000] == pytest.approx(1e-5 + 1.9e-4 * 0.5**0.9, rel=1e-5)


def test_the_steps_are_mmdetections() -> None:
    """A tenth from the 9th and from the 12th epoch on, after 500 steps of warm-up from 0.001."""
    schedule = ScheduleConfig(
        scheduler="multi_step_decay",
        epoch_size=12,
        lr=1e-4,
        warmup_lr=1e-7,
        warmup_steps=500,
        multi_step_decay_milestones=(8, 11),
        decay_rate=0.1,
    )
    rates = learning_rates(schedule, 1e-4, 1000)
    assert rates.shape == (12_000,)
    for i in (0, 1, 250, 499):
        assert rates[i] == pytest.approx(1e-4 * (1 - (1 - i / 500) * 0.999), rel=1e-5)
    for i, factor in {500: 1, 7999: 1, 8000: 0.1, 10_999: 0.1, 11_000: 0.01, 11_999: 0.01}.items():
        assert rates[i] == pytest.approx(1e-4 * factor, rel=1e-5)
    short = learning_rates(schedule, 1e-4, 100)  # the warm-up is over several epochs
    assert short[250] == pytest.approx(1e-4 * (1 - 0.5 * 0.999), rel=1e-5)
