"""After which steps a run waits for the device, of which it is ahead in between."""

from __future__ import annotations

from ..config import Recipe
from ..runtime.interrupts import StopRequest
from .progress import Progress
from .run_folder import saves_within_epoch
from .step import TrainStep


def must_look(recipe: Recipe, step: TrainStep, progress: Progress, request: StopRequest) -> bool:
    """Whether the device is to be waited for after the last step, to read how it went.

    The same on all ranks, which stop after the same step: they agree on it in a step, and know it
    when they look. A rank that is alone need not wait for that.
    """
    return (
        progress.at_first_step  # which compiles
        or progress.at_epoch_end
        or progress.step % recipe.system.log_interval == 0
        or saves_within_epoch(recipe.checkpointing, progress)
        or (step.world_size == 1 and request.received is not None)
    )
