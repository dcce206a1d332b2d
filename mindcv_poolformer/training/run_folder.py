"""What a run keeps in its folder, as its main rank writes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..config import CheckpointingConfig, Recipe
from ..runtime.files import remove_leftovers
from .checkpoint import RunCheckpoints
from .curves import draw_curves
from .image_list import FILE, write_image_list
from .progress import Progress
from .records import Records, write_facts
from .resume import Found
from .step import TrainStep


def saves_within_epoch(keeping: CheckpointingConfig, progress: Progress) -> bool:
    """Whether a checkpoint is due after the last step, be it the last of its epoch or not."""
    steps = keeping.ckpt_save_steps
    return steps is not None and progress.epoch_step % steps == 0


class RunFolder:
    """Recipe, classes, records and checkpoints of a run.

    Args:
        folder: the run folder, which this process alone writes to.
        recipe: of the run.
        metadata: goes into every checkpoint; names the ``classes``.
        step: the training step.
        progress: of the run.
        found: what the run goes on from, None for a new run.
        images: that it trains on: name within the training set and label of each, in order.
        metric: see :class:`RunCheckpoints`.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        metadata: Mapping[str, Any],
        step: TrainStep,
        progress: Progress,
        found: Found | None,
        images: Iterable[tuple[str, int]],
        metric: tuple[str, str],
    ) -> None:
        self.folder = folder
        self._keeping = recipe.checkpointing
        self._step = step
        self._progress = progress
        remove_leftovers(folder)
        write_facts(folder, recipe.to_yaml(), metadata["classes"])
        own = found if found and found.own else None  # what another folder holds is not here
        if not own or not (folder / FILE).exists():
            write_image_list(folder, images)
        self._records = Records(folder, progress.step / progress.epoch_steps if own else 0)
        self._checkpoints = RunCheckpoints(
            folder,
            self._keeping,
            metadata,
            history=own.checkpoint.metadata["history"] if own else None,
            last_is_whole=not (found and found.damaged),
            metric=metric,
            origin=found.origin if found else None,
        )

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        # Else TensorBoard's thread may end with a traceback when a failed run does.
        self._records.close()

    def record(self, kind: str, values: Mapping[str, Any]) -> None:
        """Write one record: kind is train or val."""
        self._records.write(kind, self._progress.step, values)

    def save(self, score: float | None, stopping: bool) -> None:
        """Save what is due after an update.

        Args:
            score: of the epoch that ends here, in percent; None if it was not validated.
            stopping: whether the run stops here.

        Raises:
            UserError: as RunCheckpoints.save_last.
        """
        keeping, progress = self._keeping, self._progress
        interval = keeping.ckpt_save_interval
        due = progress.at_epoch_end and (progress.done or progress.epoch % interval == 0)
        saved = (due or score is not None) and self._checkpoints.save_epoch(
            progress.epoch, score, self._step, progress.position, due
        )
        if not saved and (stopping or saves_within_epoch(keeping, progress)):
            self._checkpoints.save_last(self._step, progress.position)

    def finish(self) -> list[str]:
        """Draw the curves; give what there is to tell."""
        return [*self._checkpoints.summary(), f"curves: {draw_curves(self.folder)}"]
