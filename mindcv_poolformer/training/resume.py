"""Whether and from where a run goes on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mindspore import Tensor

from ..config import Recipe
from ..runtime.checkpoint_file import Checkpoint, fill, read_checkpoint
from ..runtime.errors import UserError
from .checkpoint import LAST, PREVIOUS, training_state
from .image_list import what_changed
from .step import TrainStep

# Keys that change nothing about the weights of a run that goes on.
_HARMLESS = {
    "distribute",
    "num_parallel_workers",
    "python_multiprocessing",
    "dataset_sink_mode",
    "log_interval",
    "val_amp_level",
    "max_bad_updates",
    "dataset_download",
    "data_dir",
    "train_split",
    "val_split",
    "on_corrupt",
    "crop_pct",
    "val_interpolation",
    "size_divisor",
    "train_annotations",
    "val_annotations",
    "val_canvas",
    "score_thr",
    "nms_iou_threshold",
    "nms_pre",
    "max_per_img",
    "ckpt_save_dir",
    "resume",
    "resume_force",
    "ckpt_save_interval",
    "ckpt_save_steps",
    "ckpt_save_policy",
    "keep_checkpoint_max",
    "val_while_train",
    "val_interval",
}
_RANKS = "number of ranks"
_IMAGES = "training images"
# What resume_force lets change: how the images come in batches.
_FORCEABLE = {_RANKS, "batch_size", "gradient_accumulation_steps"}


@dataclass(frozen=True)
class Found:
    """A checkpoint to go on from.

    Args:
        path: of it.
        checkpoint: what it holds.
        own: whether it lies in the run folder: what else is there is then of the same run.
        damaged: why a newer one was passed over, in one line each.
    """

    path: Path
    checkpoint: Checkpoint
    own: bool = True
    damaged: tuple[str, ...] = ()

    @property
    def position(self) -> dict[str, Any]:
        """Where the run stood, see Progress."""
        return self.checkpoint.metadata["position"]

    @property
    def origin(self) -> str | None:
        """The checkpoint of another folder that the run here began with, None for none."""
        return self.checkpoint.metadata.get("origin") if self.own else str(self.path.resolve())

    def lines(self, step: int, done: bool) -> list[str]:
        """What there is to tell: ``step`` steps are done, and with ``done`` the run is complete."""
        if done:
            told = "the run is complete; --resume false starts it anew"
        else:
            told = f"going on after step {step}"
        return [*self.damaged, f"{self.path}: {told}"]


def find(folder: Path, resume: bool | str) -> Found | None:
    """Read the checkpoint that ``resume`` asks for; None to start anew.

    Args:
        folder: the run folder.
        resume: "auto" takes the folder's last checkpoint, or the one before if that is damaged,
            and starts anew if there is neither; true is the same, but one must be there; false
            starts anew; a path takes that one, but where a run that began with it is in the
            folder, that run's last.

    Raises:
        UserError: the checkpoint asked for is not there, or damaged, or none of a run; it is
            another folder's, and another run is in this one.
    """
    if resume is False:
        return None
    if resume not in (True, "auto"):
        return _asked_for(folder, Path(str(resume)))
    found = _last(folder)
    if not found and resume is True:
        raise UserError(
            f"resume: found no checkpoint {folder / LAST}, expected one of an earlier run"
        )
    return found


def _asked_for(folder: Path, path: Path) -> Found:
    elsewhere = path.parent.resolve() != folder.resolve()
    there = _last(folder) if elsewhere else None
    if there and there.origin != str(path.resolve()):
        raise UserError(
            f"resume: found a run in {folder} that did not begin with {path}, expected none: "
            "choose another --ckpt_save_dir, or --resume true to go on with that run"
        )
    if there:
        return there
    if not path.is_file():
        raise UserError(f"resume: found no checkpoint {path}, expected one of an earlier run")
    return Found(path, _read(path), own=not elsewhere)


def _last(folder: Path) -> Found | None:
    """The folder's last checkpoint that is whole."""
    paths = [path for path in (folder / LAST, folder / PREVIOUS) if path.is_file()]
    damaged: list[str] = []
    for path in paths:
        try:
            return Found(path, _read(path), damaged=tuple(damaged))
        except UserError as error:
            damaged.append(str(error))
    if damaged:
        raise UserError(
            f"resume: {'; '.join(damaged)}; no checkpoint is left to go on from: "
            "--resume false starts anew"
        )
    return None


def _read(path: Path) -> Checkpoint:
    checkpoint = read_checkpoint(path)
    if not {"run", "position", "history"} <= checkpoint.metadata.keys():
        raise UserError(f"{path}: found no state of a run, expected the {LAST} of one")
    return checkpoint


def run_identity(
    recipe: Recipe, world_size: int, images: Iterable[tuple[str, int]]
) -> dict[str, Any]:
    """Give everything that decides the weights of a run, as JSON would give it back.

    Args:
        recipe: the run's recipe.
        world_size: number of ranks.
        images: name within the training set and label of each image, in order.
    """
    identity = {key: value for key, value in _values(recipe).items() if key not in _HARMLESS}
    digest = hashlib.sha256()
    for name, label in images:
        digest.update(os.fsencode(f"{name}\n{label}\n"))  # a file's name may be no text
    return identity | {_RANKS: world_size, _IMAGES: digest.hexdigest()[:16]}


def _values(recipe: Recipe) -> dict[str, Any]:
    """The value of each key, as JSON would give it back."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for section in asdict(recipe).values()
        for key, value in section.items()
    }


def check_same_run(
    then: Mapping[str, Any],
    now: Mapping[str, Any],
    images: Iterable[tuple[str, int]],
    path: Path,
    force: bool = False,
) -> None:
    """Refuse to go on with another run.

    Args:
        then: identity of the run that saved the checkpoint.
        now: identity of the run that would go on.
        images: of the run that would go on, see :func:`run_identity`.
        path: of the checkpoint.
        force: let the number of ranks and the size of the batches change.

    Raises:
        UserError: naming the first difference, and how many there are.
    """
    defaults = _values(Recipe())  # of keys that there were not then
    different = [key for key in now if then.get(key, defaults.get(key)) != now[key]]
    forceable = set(different) <= _FORCEABLE
    if not different or (force and forceable):
        return
    key = next((key for key in different if not (force and key in _FORCEABLE)), different[0])
    more = f" and {len(different) - 1} more" if len(different) > 1 else ""
    remedy = "restore it, or choose another --ckpt_save_dir or --resume false"
    if forceable:
        remedy += ", or take the change with --resume_force true"
    if key == "epoch_size":
        remedy += f"; to train on: --ckpt_path {path} and a --ckpt_save_dir of its own"
    trained, found = f"with {key} {then.get(key)!r}", repr(now[key])
    if key == _IMAGES and (changes := what_changed(path.parent, images)):
        trained, found = "on other images", changes
    raise UserError(
        f"resume: {path} was trained {trained}, found {found}{more}; "
        f"expected the same run: {remedy}"
    )


def go_on(
    found: Found,
    identity: Mapping[str, Any],
    images: Iterable[tuple[str, int]],
    step: TrainStep,
    global_batch: int,
    force: bool,
) -> None:
    """Set a step and its network to where the checkpoint of a run stands.

    With batches of another size the run goes on in the same epoch, after as many images or up to
    one update fewer; what it gives then is no longer bitwise what it would have been.

    Args:
        found: the checkpoint.
        identity: of this run.
        images: of this run, see :func:`run_identity`.
        step: to set.
        global_batch: images of a step, over all ranks.
        force: see :func:`check_same_run`.

    Raises:
        UserError: as :func:`check_same_run` and :func:`fill`.
    """
    checkpoint, path = found.checkpoint, found.path
    check_same_run(checkpoint.metadata["run"], identity, images, path, force)
    fill({weight.name: weight for weight in step.network_weights}, checkpoint.weights, path)
    fill(training_state(step), checkpoint.state, path)
    position = found.position
    epochs, steps = divmod(position["step"], position["epoch_steps"])
    steps = min(steps * position["global_batch"] // global_batch, step.epoch_steps - 1)
    steps -= steps % step.accumulation_steps  # between two updates
    step.global_step.set_data(Tensor(epochs * step.epoch_steps + steps, step.global_step.dtype))
