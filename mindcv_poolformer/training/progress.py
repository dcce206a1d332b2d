"""How a run tells where it is: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from tqdm import tqdm

from ..runtime.errors import UserError
from .step import TrainStep


class Progress:
    """Counts the steps of a run and tells how they go.

    Args:
        epoch_steps: steps of an epoch.
        total_steps: steps of the whole run.
        images_per_step: over all ranks.
        first_step: steps done before.
        show: whether this rank speaks at all.
    """

    def __init__(
        self,
        epoch_steps: int,
        total_steps: int,
        images_per_step: int,
        first_step: int,
        show: bool,
    ) -> None:
        self.epoch_steps = epoch_steps
        self.epochs = total_steps // epoch_steps
        self.total_steps = total_steps
        self.images_per_step = images_per_step
        self.step = first_step
        self.show = show
        self._epoch_losses: list[float] = []
        self._epoch_start = time.perf_counter()
        self._mark: tuple[float, int] | None = None
        self._bar = tqdm(
            total=total_steps * images_per_step,
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
    def at_epoch_end(self) -> bool:
        """Whether the last step was the last of its epoch."""
        return self.step % self.epoch_steps == 0

    def advance(self) -> None:
        """Count one step. The clock starts after the first one, which compiles."""
        self.step += 1
        self._bar.update(self.images_per_step)
        if self._mark is None:
            self._mark = (time.perf_counter(), self.step)

    def report(self, losses: Sequence[float], lr: float, step: TrainStep) -> dict[str, Any]:
        """Tell of the steps since the last report; give their record.

        Args:
            losses: of each of those steps.
            lr: of the last one.
            step: the training step.

        Raises:
            UserError: none of the losses is finite: training has diverged.
        """
        finite = [loss for loss in losses if math.isfinite(loss)]
        if not finite:
            raise UserError(
                f"loss: found {losses[-1]} in all of the last {len(losses)} steps, up to step "
                f"{self.step}, expected finite ones: lower lr, or raise amp_level's precision"
            )
        self._epoch_losses += finite
        row = {
            "epoch": self.step / self.epoch_steps,
            "loss": sum(finite) / len(finite),
            "lr": float(lr),
            "loss_scale": float(step.loss_scaler.scale_value),
            "skipped_updates": int(step.skipped_updates),
        }
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
            f"training loss {sum(losses) / len(losses):.4f}{remark}"
        )
        losses.clear()
        self._epoch_start = now
        self._mark = (now, self.step)

    def say(self, line: str) -> None:
        """Print a line, above the bar where there is one."""
        if self.show:
            tqdm.write(line, file=sys.stdout)
            sys.stdout.flush()

    def close(self) -> None:
        """End the bar."""
        self._bar.close()

    def _tell(self, row: dict[str, Any]) -> None:
        skipped = f"  skipped {row['skipped_updates']}" if row["skipped_updates"] else ""
        if not self._bar.disable:
            self._bar.set_postfix_str(f"loss {row['loss']:.3f}, lr {row['lr']:.2e}{skipped}")
            return
        speed = row.get("images_per_second")
        if speed is None:
            return
        left = round((self.total_steps - self.step) * self.images_per_step / speed)
        self.say(
            f"epoch {self.epoch}/{self.epochs}  "
            f"step {(self.step - 1) % self.epoch_steps + 1}/{self.epoch_steps}  "
            f"loss {row['loss']:.4f}  lr {row['lr']:.3e}  {speed:.1f} images/s  "
            f"ETA {timedelta(seconds=left)}{skipped}"
        )
