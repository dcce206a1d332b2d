"""Runs by their records: what they have reached, and the curves of several in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from ..runtime.errors import UserError
from ..runtime.figures import drawn, printable
from .records import CURVES, METRICS, read_records

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RECIPE = "recipe.yaml"
# What ranks epochs, by its name in records.
SCORES = {"top1": "top-1", "mIoU": "mIoU", "box_AP": "box AP"}
SHOWN = {**SCORES, "top5": "top-5", "mAcc": "mAcc", "aAcc": "aAcc"}
# Okabe and Ito's colours, which colour-blind people can tell apart, without their yellow.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v")
MARKS = 8  # on a curve, about


@dataclass(frozen=True)
class Run:
    """A run, finished or not, as its folder tells of it.

    Args:
        folder: the run folder, under the name that it was asked for by.
        model: name of the variant.
        epochs: that the run is to have.
        train, val: its records, each with an ``epoch`` that is higher than the one's before.
    """

    folder: Path
    model: str
    epochs: int
    train: tuple[dict[str, Any], ...]
    val: tuple[dict[str, Any], ...]

    @property
    def epoch(self) -> float:
        """How many epochs it has done."""
        return max(rows[-1]["epoch"] for rows in (self.train, self.val) if rows)

    @property
    def best(self) -> dict[str, Any] | None:
        """The record of its best validation, the latest of equals; None if it has none."""
        return max(self.val, key=lambda row: (row[score_of(row)], row["epoch"]), default=None)

    @property
    def loss(self) -> float | None:
        """The last training loss that did not overflow."""
        return next((row["loss"] for row in self.train[::-1] if row["loss"] is not None), None)

    @property
    def speed(self) -> float | None:
        """Images per second while it trained: the median of its records."""
        speeds = [row["images_per_second"] for row in self.train if "images_per_second" in row]
        return float(np.median(speeds)) if speeds else None


def score_of(row: Mapping[str, Any]) -> str:
    """Give the key of what ranks a validation's record.

    Raises:
        KeyError: it has no such key.
    """
    for key in SCORES:
        if key in row:
            return key
    raise KeyError(*SCORES)


def read_validations(folder: Path) -> tuple[dict[str, Any], ...]:
    """Give a run's records of its validations, which may be none.

    Raises:
        UserError: as :func:`read_run`.
    """
    return tuple(row for row in _records(folder) if row["kind"] == "val")


def read_run(folder: Path) -> Run:
    """Read a run folder, while the run goes on too.

    Raises:
        UserError: it is no folder, holds no records of a run, or they or its recipe are damaged.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
        raise UserError(f"{folder}: found {found}, expected a run folder of train.py")
    rows = _records(folder)
    if not rows:
        raise UserError(f"{folder}: found no records ({METRICS}), expected those of a run")
    path = folder / RECIPE
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
        model, epochs = str(recipe["model"]), int(recipe["epoch_size"])
    except FileNotFoundError:
        raise UserError(f"{path}: found no such file, expected the recipe of the run") from None
    except (ValueError, yaml.YAMLError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path}: found no recipe ({reason}), expected model and epoch_size"
        ) from None
    train, val = (tuple(row for row in rows if row["kind"] == kind) for kind in ("train", "val"))
    return Run(folder, model, epochs, train, val)


def _records(folder: Path) -> list[dict[str, Any]]:
    """The records in the order of their epochs.

    A run that was taken up again at an earlier point has its later records count, not the old
    ones of that point and after it.
    """
    kept: list[dict[str, Any]] = []
    try:
        for row in read_records(folder):
            if row["kind"] == "val":
                score_of(row)
            elif missing := [key for key in ("loss", "lr") if key not in row]:
                raise KeyError(*missing)
            place = _place(row)
            while kept and _place(kept[-1]) >= place:
                kept.pop()
            kept.append(row)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / METRICS}: found no records of a run ({error!r})") from None
    return kept


def _place(row: dict[str, Any]) -> tuple[float, bool]:
    """Where a record stands in its run; an epoch is validated after it is trained."""
    return float(row["epoch"]), row["kind"] == "val"


def draw_runs(runs: Sequence[Run], path: Path) -> None:
    """Draw loss, learning rate and validation score of several runs over their epochs.

    An epoch is as many images whatever the batch size, so equal places are equal numbers of images
    seen. Each run has a colour, a line and a marker of its own.
    """
    with drawn(path, 13, 4.3 + 0.22 * -(-len(runs) // 3)) as figure:
        scores = {score_of(row) for run in runs for row in run.val[:1]} or {"top1"}
        names = " or ".join(SCORES[key] for key in SCORES if key in scores)
        panels = _panels(figure, ("training loss", "learning rate", f"validation {names} (%)"))
        for number, (run, colour, line, marker) in enumerate(
            zip(runs, cycle(COLOURS), cycle(LINES), cycle(MARKERS), strict=False)
        ):
            score = score_of(run.val[0]) if run.val else "top1"
            for axes, rows, key in zip(
                panels, (run.train, run.train, run.val), ("loss", "lr", score), strict=True
            ):
                every = max(1, len(rows) // MARKS)
                _plot(
                    axes,
                    rows,
                    key,
                    color=colour,
                    linestyle=line,
                    marker=marker,
                    markersize=5,
                    markevery=(number * every // len(runs), every),
                    label=printable(str(run.folder)) if axes is panels[0] else None,
                )
        figure.legend(loc="outside lower center", ncols=min(3, len(runs)), handlelength=4)


def draw_curves(folder: Path) -> Path:
    """Draw loss, learning rate and accuracy of a run into its folder; give the path of the PNG."""
    rows = _records(folder)
    train, val = ([row for row in rows if row["kind"] == kind] for kind in ("train", "val"))
    with drawn(folder / CURVES, 13, 3.8) as figure:
        losses, rates, accuracies = _panels(figure, ("loss", "learning rate", "accuracy (%)"))
        for axes, kept, key, label in [
            (losses, train, "loss", "training"),
            (losses, val, "loss", "validation"),
            (rates, train, "lr", None),
            *((accuracies, val, key, f"validation {name}") for key, name in SHOWN.items()),
        ]:
            if kept and key in kept[0]:
                _plot(axes, kept, key, label=label)
        for axes in (losses, accuracies):
            if axes.lines:
                axes.legend()
    return folder / CURVES


def _panels(figure: Figure, titles: Sequence[str]) -> Sequence[Axes]:
    panels = figure.subplots(1, len(titles))
    for axes, title in zip(panels, titles, strict=True):
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
    return panels


def _plot(axes: Axes, rows: Sequence[dict[str, Any]], key: str, **style: Any) -> None:
    values = np.array([row[key] for row in rows], np.float64)  # null becomes a gap
    axes.plot([row["epoch"] for row in rows], values, **style)
