"""The checkpoints of a run: the weights, and everything else that decides how it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter

from ..config import CheckpointingConfig
from ..runtime.checkpoint_file import save_checkpoint
from ..runtime.errors import UserError
from .step import TrainStep

LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"
BEST = "best.ckpt"
TOP1 = ("top1", "top-1")


def training_state(step: TrainStep) -> dict[str, Parameter]:
    """Give every parameter that decides how a run goes on beside the weights, by name.

    Between two updates; within one the gradients summed so far, of each rank, would belong to it.
    """
    optimizer = step.optimizer
    state = [*optimizer.exp_avg, *optimizer.exp_avg_sq, optimizer.step]
    state += [step.global_step, step.skipped_updates, step.bad_updates]
    if step.ema_decay is not None:
        state += step.ema
    if isinstance(step.loss_scaler, ms.amp.DynamicLossScaler):
        state += [step.loss_scaler.scale_value, step.loss_scaler.counter]
    return {parameter.name: parameter for parameter in state}


def evaluated_weights(step: TrainStep) -> dict[str, Parameter]:
    """Give the weights to validate and to keep, by name: their moving average where there is one.

    Parameters that are not trained have no average and stand for themselves.
    """
    weights = {weight.name: weight for weight in step.network_weights}
    if step.ema_decay is not None:
        weights |= {w.name: average for w, average in zip(step.weights, step.ema, strict=True)}
    return weights


class RunCheckpoints:
    """The checkpoints in a run folder.

    ``last.ckpt`` holds the weights and the training state, to go on from, and ``previous.ckpt`` is
    the one before. ``best.ckpt`` and the ``epoch_0007.ckpt`` that the policy keeps hold weights
    alone, as they were validated: the moving average where there is one.

    Args:
        folder: the run folder.
        keeping: what to keep.
        metadata: goes into every checkpoint, with its epoch and score.
        history: ``history`` of the run that goes on here, None for a new run, which takes the
            place of an earlier one: that one's checkpoints are deleted.
        last_is_whole: whether ``last.ckpt`` is worth to become ``previous.ckpt``.
        metric: key and name of the score, a percentage, by which epochs are ranked.
        origin: see :class:`Found`; goes into ``last.ckpt``.
    """

    def __init__(
        self,
        folder: Path,
        keeping: CheckpointingConfig,
        metadata: Mapping[str, Any],
        history: Mapping[str, Any] | None = None,
        last_is_whole: bool = True,
        metric: tuple[str, str] = TOP1,
        origin: str | None = None,
    ) -> None:
        self.folder = folder
        self.policy = keeping.ckpt_save_policy
        self.keep = keeping.keep_checkpoint_max
        self.metadata = metadata
        self.last_is_whole = last_is_whole
        self.origin = origin
        self._key, self._name = metric
        self._best_key = f"best_{self._key}"
        if history is None:
            for name in (LAST, PREVIOUS, BEST, "epoch_[0-9][0-9][0-9][0-9].ckpt"):
                for stale in folder.glob(name):
                    stale.unlink()
            history = {"best_epoch": None, self._best_key: None, "kept": []}
        self.best_epoch: int | None = history["best_epoch"]
        self.best_score: float | None = history[self._best_key]
        self.kept: dict[int, float | None] = {epoch: score for epoch, score in history["kept"]}

    @property
    def history(self) -> dict[str, Any]:
        """What has been kept so far, for JSON."""
        kept = sorted(self.kept.items())
        return {"best_epoch": self.best_epoch, self._best_key: self.best_score, "kept": kept}

    def save_epoch(
        self,
        epoch: int,
        score: float | None,
        step: TrainStep,
        position: Mapping[str, Any],
        due: bool = True,
    ) -> bool:
        """Save after an epoch, if there is something to keep; tell whether there was.

        Args:
            epoch: its number, counted from 1.
            score: in percent, None if it was not validated. On equal ones the newer epoch is the
                better one.
            step: the training step.
            position: where the run stands, for JSON.
            due: keep it whatever its score; else only as the best, or among those of top_k.

        Raises:
            UserError: as :meth:`save_last`.
        """
        _check_finite(step, self.folder / LAST)
        metadata = {**self.metadata, "epoch": epoch, self._key: score}
        best = score is not None and (self.best_score is None or score >= self.best_score)
        if best:
            self.best_epoch, self.best_score = epoch, score
            save_checkpoint(self.folder / BEST, evaluated_weights(step), metadata)
        dropped = self._count_in(epoch, score, due)
        if epoch in self.kept:
            save_checkpoint(self._path(epoch), evaluated_weights(step), metadata)
        if not (due or best or dropped or epoch in self.kept):
            return False
        self._replace_last(step, position)
        for old in dropped:
            self._path(old).unlink(missing_ok=True)
        return True

    def save_last(self, step: TrainStep, position: Mapping[str, Any]) -> None:
        """Save what the run goes on from, between two updates.

        Raises:
            UserError: a weight is not finite, or the file system does not take the file. What was
                saved before is kept.
        """
        _check_finite(step, self.folder / LAST)
        self._replace_last(step, position)

    def _replace_last(self, step: TrainStep, position: Mapping[str, Any]) -> None:
        save_checkpoint(
            self.folder / LAST,
            {weight.name: weight for weight in step.network_weights},
            {
                **self.metadata,
                "position": position,
                "history": self.history,
                "origin": self.origin,
            },
            training_state(step),
            self.folder / PREVIOUS if self.last_is_whole else None,
        )
        self.last_is_whole = True

    def summary(self) -> list[str]:
        """The best epoch in one line, where there was a validation."""
        if self.best_score is None:
            return []
        where = self.folder / BEST
        score = f"{self._name} {self.best_score:.2f} %"
        return [f"best: {score} after epoch {self.best_epoch}, {where}"]

    def _path(self, epoch: int) -> Path:
        return self.folder / f"epoch_{epoch:04d}.ckpt"

    def _count_in(self, epoch: int, score: float | None, due: bool) -> list[int]:
        """Add an epoch if the policy wants it; give those that it keeps no longer."""
        wanted = {None: False, "top_k": score is not None, "latest_k": due}
        if not wanted[self.policy]:
            return []
        before = set(self.kept)
        self.kept[epoch] = score
        order = sorted(self.kept, reverse=True)
        if self.policy == "top_k":
            order.sort(key=lambda candidate: self.kept[candidate] or 0.0, reverse=True)
        self.kept = {chosen: self.kept[chosen] for chosen in order[: self.keep]}
        return sorted(before - set(self.kept))


def _check_finite(step: TrainStep, last: Path) -> None:
    for weight in step.network_weights:
        if not np.isfinite(weight.asnumpy()).all():
            raise UserError(
                f"weights: found {weight.name} not finite after step {int(step.global_step)}, "
                f"expected finite ones; not saved, {last} stays as it was: "
                "lower lr, or give --drop_overflow_update true"
            )
