"""How a run tells where it is: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import numpy as np
from tqdm import tqdm

from .step import Outcome, TrainStep


class Progress:
    """Counts the steps of a run and tells how they go.

    Args:
        epoch_steps: steps of an epoch.
        rates: learning rate of each step of the run, (steps,).
        images_per_step: over all ranks.
        first_step: steps done before.
        show: whether this rank speaks at all.
    """

    def __init__(
        self,
        epoch_steps: int,
        rates: np.ndarray,
        images_per_step: int,
        first_step: int,
        show: bool,
    ) -> None:
        self.epoch_steps = epoch_steps
        self.epochs = len(rates) // epoch_steps
        self.rates = rates
        self.images_per_step = images_per_step
        self.step = first_step
        self.show = show
        self._losses: list[float] = []
        self._epoch_losses: list[float] = []
        self._epoch_start = time.perf_counter()
        self._mark: tuple[float, int] | None = None
        self._compiling_since: float | None = None
        self._bar = tqdm(
            total=len(rates) * images_per_step,
            initial=first_step * images_per_step,
            unit="img",
            unit_scale=True,
            dynamic_ncols=True,
            disable=not (show and sys.stderr.isatty()),
        )

    @property
    def epoch(self) -> int:
        """The epoch of the last step, counted from 1."""
        return -(-self.step // self.epoch_steps)

    @property
    def epoch_step(self) -> int:
        """The last step's number within its epoch, counted from 1."""
        return (self.step - 1) % self.epoch_steps + 1

    @property
    def done(self) -> bool:
        """Whether the last step was the last of the run."""
        return self.step == len(self.rates)

    @property
    def at_epoch_end(self) -> bool:
        """Whether the last step was the last of its epoch."""
        return self.step % self.epoch_steps == 0

    @property
    def position(self) -> dict[str, Any]:
        """Where the run stands, for JSON: its step, the sizes that count it, its open losses.

        Those of an epoch that has ended are not open: it is told of where it ends.
        """
        return {
            "step": self.step,
            "epoch_steps": self.epoch_steps,
            "global_batch": self.images_per_step,
            "losses": self._losses,
            "epoch_losses": [] if self.at_epoch_end else self._epoch_losses,
        }

    def take_up(self, position: Mapping[str, Any]) -> None:
        """Take up the open losses of the run that goes on here, if its batches are the same."""
        if position["step"] == self.step:
            self._losses += position["losses"]
            self._epoch_losses += position["epoch_losses"]

    def compiling(self, model: str) -> None:
        """Tell that the next step compiles, of itself without a word; `take` tells when it has.

        Args:
            model: whose step it is.
        """
        self.say(f"compiling the training step of {model}, once: this may take minutes")
        self._compiling_since = time.perf_counter()

    @property
    def at_first_step(self) -> bool:
        """Whether no outcome has been taken in so far."""
        return self._mark is None

    def advance(self) -> None:
        """Count one step, which the device may be at still."""
        self.step += 1
        self._bar.update(self.images_per_step)

    def take(self, outcomes: Iterable[Outcome]) -> None:
        """Take in all steps since the last time. The clock starts after the first one's compiling.

        Args:
            outcomes: of each, in their order.
        """
        self._losses += [outcome.loss for outcome in outcomes]
        if self._compiling_since is not None:
            seconds = time.perf_counter() - self._compiling_since
            self.say(f"compiled, and the first step done: {seconds:.1f} s")
            self._compiling_since = None
        if self._mark is None:
            self._mark = (time.perf_counter(), self.step)

    def report(self, step: TrainStep) -> dict[str, Any]:
        """Tell of the steps since the last report; give their record.

        Losses that overflowed do not count; where there is no other, the loss is None.
        """
        finite = [loss for loss in self._losses if math.isfinite(loss)]
        self._losses.clear()
        self._epoch_losses += finite
        row = {
            "epoch": self.step / self.epoch_steps,
            "loss": _mean(finite),
            "lr": float(self.rates[self.step - 1]),
            "loss_scale": float(step.loss_scaler.scale_value),
            "skipped_updates": int(step.skipped_updates),
        }
        assert self._mark is not None  # a step has been told of
        since, marked = self._mark
        if self.step > marked:
            images = (self.step - marked) * self.images_per_step
            row["images_per_second"] = images / (time.perf_counter() - since)
        self._mark = (time.perf_counter(), self.step)
        self._tell(row)
        return row

    def end_epoch(self, remark: str) -> None:
        """Tell of the epoch, its validation and saving included; ``remark`` ends the line."""
        losses = self._epoch_losses
        now = time.perf_counter()
        self.say(
            f"epoch {self.epoch}/{self.epochs}: {now - self._epoch_start:.1f} s, "
            f"training loss {_text(_mean(losses), '.4f')}{remark}"
        )
        losses.clear()
        self._epoch_start = now
        self._mark = (now, self.step)

    def say(self, *lines: str) -> None:
        """Print lines, above the bar where there is one."""
        if self.show:
            for line in lines:
                tqdm.write(line, file=sys.stdout)
            sys.stdout.flush()

    def close(self) -> None:
        """End the bar; tell if the run is not done."""
        self._bar.close()
        if not self.done:
            self.say(
                f"asked to stop: saved after step {self.epoch_step}/{self.epoch_steps} of epoch "
                f"{self.epoch}; the same command goes on from there"
            )

    def _tell(self, row: dict[str, Any]) -> None:
        skipped = f"  skipped {row['skipped_updates']}" if row["skipped_updates"] else ""
        if not self._bar.disable:
            self._bar.set_postfix_str(
                f"loss {_text(row['loss'], '.3f')}, lr {row['lr']:.2e}{skipped}"
            )
            return
        speed = row.get("images_per_second")
        if speed is None:
            return
        left = round((len(self.rates) - self.step) * self.images_per_step / speed)
        self.say(
            f"epoch {self.epoch}/{self.epochs}  "
            f"step {self.epoch_step}/{self.epoch_steps}  "
            f"loss {_text(row['loss'], '.4f')}  lr {row['lr']:.3e}  {speed:.1f} images/s  "
            f"ETA {timedelta(seconds=left)}{skipped}"
        )


def _mean(losses: list[float]) -> float | None:
    return sum(losses) / len(losses) if losses else None


def _text(loss: float | None, form: str) -> str:
    return "overflowed" if loss is None else format(loss, form)
