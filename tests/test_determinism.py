"""Equal seeds give equal runs, bit by bit, whatever the workers; other seeds do not."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts import TWINS, Twins, assert_equal_weights, run, weights


def test_threads_and_processes_train_the_same_weights(twins: Twins) -> None:
    for name in ("last.ckpt", "best.ckpt"):
        assert_equal_weights(twins.plain / name, twins.terminal / name)


@pytest.fixture(scope="module")
def short(twins: Twins) -> Path:
    """The twins' recipe for one epoch, two threads as workers; the checkpoint it ends with."""
    return train_one_epoch(twins, "short", seed=42, num_parallel_workers=2)


def train_one_epoch(twins: Twins, save_dir: str, **keys: object) -> Path:
    shorter = TWINS | {"epoch_size": 1, "warmup_epochs": 0, "ckpt_save_policy": None}
    ended = run("train.py", twins.workspace, ckpt_save_dir=save_dir, **shorter | {"mode": 1} | keys)
    assert (ended.code, ended.err) == (0, "")
    return twins.workspace / save_dir / "last.ckpt"


@pytest.mark.long
def test_the_number_of_threads_changes_nothing(twins: Twins, short: Path) -> None:
    assert_equal_weights(short, train_one_epoch(twins, "one-thread", num_parallel_workers=1))


@pytest.mark.long
def test_another_seed_trains_other_weights(twins: Twins, short: Path) -> None:
    other = weights(train_one_epoch(twins, "other-seed", seed=43))
    same = [
        name
        for name, value in weights(short).items()
        if name.endswith("weight") and "exp_avg" not in name and (value == other[name]).any()
    ]
    assert same == []
