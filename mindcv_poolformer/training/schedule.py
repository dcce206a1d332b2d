"""The learning rate of every step of a run, as a table."""

from __future__ import annotations

import numpy as np

from ..config import ScheduleConfig
from ..runtime.counted import counted
from ..runtime.errors import UserError


def peak_learning_rate(schedule: ScheduleConfig, images_per_update: int) -> float:
    """Give ``lr``, or ``lr_base`` scaled to the images of one update over all ranks."""
    if schedule.lr_base is not None:
        return schedule.lr_base * images_per_update / schedule.lr_base_size
    assert schedule.lr is not None  # a recipe has one of them
    return schedule.lr


def learning_rates(schedule: ScheduleConfig, peak_lr: float, steps_per_epoch: int) -> np.ndarray:
    """Give the learning rate of each step, shape (epoch_size * steps_per_epoch,), float32.

    A linear warm-up from ``warmup_lr`` to the peak, then down to ``min_lr`` over ``decay_epochs``
    by a half cosine or a power of what is left, then ``min_lr``. With ``warmup_prefix`` the decay
    starts where the warm-up ends (MindCV); without, it runs from epoch 0 and the warm-up replaces
    its head (timm, the official recipe). ``multi_step_decay`` runs from epoch 0 in any case, as
    MMDetection's does. ``lr_epoch_stair`` holds the value of an epoch's start within the epoch.

    Raises:
        UserError: a warm-up by steps is as long as the run; the decay would lead up.
    """
    epochs = np.arange(schedule.epoch_size * steps_per_epoch) / steps_per_epoch
    if schedule.lr_epoch_stair:
        epochs = np.floor(epochs)
    warmup_epochs: float = schedule.warmup_epochs
    if schedule.warmup_steps is not None:
        warmup_epochs = schedule.warmup_steps / steps_per_epoch
        if schedule.warmup_steps >= len(epochs):
            raise UserError(
                f"warmup_steps: found {schedule.warmup_steps} with a run of "
                f"{counted(len(epochs), 'step')}, "
                "expected fewer"
            )
    if schedule.scheduler == "constant":
        main = np.full_like(epochs, peak_lr)
    elif schedule.scheduler == "multi_step_decay":
        passed = np.searchsorted(schedule.multi_step_decay_milestones, epochs, side="right")
        main = peak_lr * schedule.decay_rate**passed
    else:
        if schedule.min_lr > peak_lr:
            raise UserError(
                f"min_lr: found {schedule.min_lr} with a peak learning rate of {peak_lr:.3g}, "
                "expected at most that: lr_base is scaled to the images of an update"
            )
        start = warmup_epochs if schedule.warmup_prefix else 0
        length = schedule.decay_epochs or schedule.epoch_size - start
        progress = np.clip((epochs - start) / length, 0.0, 1.0)
        if schedule.scheduler == "polynomial_decay":
            share = (1.0 - progress) ** schedule.decay_rate
        else:
            share = 0.5 * (1.0 + np.cos(np.pi * progress))
        main = schedule.min_lr + (peak_lr - schedule.min_lr) * share
    slope = (peak_lr - schedule.warmup_lr) / max(warmup_epochs, 1 / steps_per_epoch)
    warmup = schedule.warmup_lr + slope * epochs
    return np.where(epochs < warmup_epochs, warmup, main).astype(np.float32)
