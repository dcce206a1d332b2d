"""After which steps train.py waits for the device."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from mindcv_poolformer.config import CheckpointingConfig, Recipe, SystemConfig
from mindcv_poolformer.training.looks import must_look
from mindcv_poolformer.training.progress import Progress
from mindcv_poolformer.training.step import Outcome

RECIPE = replace(
    Recipe(),
    system=SystemConfig(log_interval=5),
    checkpointing=CheckpointingConfig(ckpt_save_steps=7),
)


def looks(first_step: int, world_size: int, received: object = None) -> list[int]:
    """Those of two epochs of 12 steps."""
    progress = Progress(12, np.zeros(24), 8, first_step, show=False)
    step, request = SimpleNamespace(world_size=world_size), SimpleNamespace(received=received)
    found = []
    while not progress.done:
        progress.advance()
        if must_look(RECIPE, step, progress, request):
            found.append(progress.step)
            progress.take([Outcome(0.5, 0, 1.0, asked_to_stop=False)])
    return found


@pytest.mark.parametrize("world_size", [1, 2])
def test_first_steps_epoch_ends_log_lines_and_saves(world_size: int) -> None:
    assert looks(0, world_size) == [1, 5, 7, 10, 12, 15, 19, 20, 24]
    assert looks(13, world_size) == [14, 15, 19, 20, 24]


def test_a_signal_is_seen_at_once_by_a_rank_that_is_alone() -> None:
    assert looks(13, 1, received="SIGTERM") == list(range(14, 25))
    assert looks(13, 2, received="SIGTERM") == looks(13, 2)
