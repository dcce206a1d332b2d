"""When updates that overflow are no accident any more."""

from __future__ import annotations

from collections.abc import Iterable

from mindspore.amp import DynamicLossScaler

from ..runtime.errors import UserError
from .step import Outcome, TrainStep


class OverflowWatch:
    """Stops a run whose gradients keep on being Inf or NaN.

    Args:
        step: the training step.
        limit: updates in a row that may be so.
    """

    def __init__(self, step: TrainStep, limit: int) -> None:
        self.step = step
        self.limit = limit
        per_epoch = -(-step.epoch_steps // step.accumulation_steps)
        self._updates = len(step.schedule) // step.epoch_steps * per_epoch  # of the whole run
        self._calls = int(step.global_step)
        self._bad = int(step.bad_updates)
        self._scale = float(step.loss_scaler.scale_value)

    def check(self, outcomes: Iterable[Outcome]) -> None:
        """Look at the calls since the last look, in their order.

        Raises:
            UserError: ``limit`` updates in a row were bad, or every one of a shorter run, or one
                was at the dynamic loss scale's floor, where it cannot be halved any more.
        """
        for outcome in outcomes:
            self._calls += 1
            bad, scale = outcome.bad_updates, outcome.loss_scale
            at_floor = (
                bad > self._bad
                and scale == self._scale
                and isinstance(self.step.loss_scaler, DynamicLossScaler)
            )
            self._bad, self._scale = bad, scale
            if bad >= min(self.limit, self._updates) or at_floor:
                floor = ", its floor" if at_floor else ""
                raise UserError(
                    f"gradients: found Inf or NaN in {bad} updates in a row, up to step "
                    f"{self._calls}, at a loss scale of {scale:g}{floor}; expected finite ones: "
                    "lower lr, amp_level O0 if it is another, or look for what the images of these "
                    "steps have in common; the last checkpoint is kept"
                )
