"""Whether and from where a run goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..config import Recipe
from ..runtime.checkpoint_file import fill, read_checkpoint
from ..runtime.errors import UserError
from .checkpoint import LAST, training_state
from .step import TrainStep

# Keys that change nothing about the weights of a run that goes on.
_HARMLESS = {
    "distribute",
    "num_parallel_workers",
    "python_multiprocessing",
    "dataset_sink_mode",
    "log_interval",
    "val_amp_level",
    "dataset_download",
    "data_dir",
    "train_split",
    "val_split",
    "crop_pct",
    "val_interpolation",
    "ckpt_save_dir",
    "resume",
    "ckpt_save_interval",
    "ckpt_save_policy",
    "keep_checkpoint_max",
    "val_while_train",
    "val_interval",
}


def find(folder: Path, resume: bool | str) -> Path | None:
    """Give the checkpoint that ``resume`` asks for, None to start anew.

    Args:
        folder: the run folder.
        resume: "auto" takes the folder's last checkpoint if it has one, false none, a path that
            one, true the folder's last checkpoint, which must be there.

    Raises:
        UserError: the checkpoint asked for is not there.
    """
    if resume is False:
        return None
    path = folder / LAST if resume in (True, "auto") else Path(str(resume))
    if resume == "auto" and not path.exists():
        return None
    if not path.is_file():
        raise UserError(f"resume: found no checkpoint {path}, expected one of an earlier run")
    return path


def run_identity(
    recipe: Recipe, world_size: int, images: Iterable[tuple[str, int]]
) -> dict[str, Any]:
    """Give everything that decides the weights of a run, as JSON would give it back.

    Args:
        recipe: the run's recipe.
        world_size: number of ranks.
        images: name within the training set and label of each image, in order.
    """
    identity = {
        key: list(value) if isinstance(value, tuple) else value
        for section in asdict(recipe).values()
        for key, value in section.items()
        if key not in _HARMLESS
    }
    digest = hashlib.sha256()
    for name, label in images:
        digest.update(f"{name}\n{label}\n".encode())
    return identity | {"number of ranks": world_size, "training images": digest.hexdigest()[:16]}


def check_same_run(then: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Refuse to go on with another run.

    Raises:
        UserError: naming the first difference, and how many there are.
    """
    different = [key for key in now if then.get(key) != now[key]]
    if different:
        key = different[0]
        more = f" and {len(different) - 1} more" if len(different) > 1 else ""
        raise UserError(
            f"resume: {path} was trained with {key} {then.get(key)!r}, found {now[key]!r}{more}; "
            "expected the same run: restore it, or choose another --ckpt_save_dir or "
            "--resume false"
        )


def go_on(path: Path, identity: Mapping[str, Any], step: TrainStep) -> dict[str, Any]:
    """Set a step and its network to where the checkpoint of a run stands; give the run's history.

    Raises:
        UserError: as :func:`read_checkpoint`, :func:`check_same_run` and :func:`fill`.
    """
    checkpoint = read_checkpoint(path)
    check_same_run(checkpoint.metadata.get("run", {}), identity, path)
    fill({weight.name: weight for weight in step.network_weights}, checkpoint.weights, path)
    fill(training_state(step), checkpoint.state, path)
    return checkpoint.metadata["history"]
