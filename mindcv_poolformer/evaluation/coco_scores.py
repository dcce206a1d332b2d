"""COCO's twelve numbers for boxes and masks, and how they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

OVERLAPS = np.linspace(0.5, 0.95, 10)  # of boxes or masks, at which AP is the mean
RECALLS = np.linspace(0, 1, 101)
# Of COCO's table: the name, the overlap, the size of the objects, and how many of the surest
# detections of a class on a picture count.
_ROWS = (
    ("AP", "0.50:0.95", "all", 100),
    ("AP50", "0.50", "all", 100),
    ("AP75", "0.75", "all", 100),
    ("APs", "0.50:0.95", "small", 100),
    ("APm", "0.50:0.95", "medium", 100),
    ("APl", "0.50:0.95", "large", 100),
    ("AR1", "0.50:0.95", "all", 1),
    ("AR10", "0.50:0.95", "all", 10),
    ("AR100", "0.50:0.95", "all", 100),
    ("ARs", "0.50:0.95", "small", 100),
    ("ARm", "0.50:0.95", "medium", 100),
    ("ARl", "0.50:0.95", "large", 100),
)
NAMES = tuple(name for name, *_ in _ROWS)


@dataclass(frozen=True, eq=False)
class Scores:
    """The numbers for boxes, or for masks, in percent; NaN where there is no such object.

    Args:
        values: (12,) float64, in the order of NAMES.
        by_class: (K,) float64, the AP of each class.
        curves: (10, 101) float64, precision at each of OVERLAPS and RECALLS, from 0 to 1, the mean
            over the classes of which there are objects.
    """

    values: np.ndarray
    by_class: np.ndarray
    curves: np.ndarray

    @property
    def ap(self) -> float:
        """The mean over classes and overlaps, which counts."""
        return float(self.values[0])

    def table(self) -> str:
        """Give COCO's table: a line for each number."""
        lines = [f"{'':<6} {'IoU':<9}  {'objects':<7}  {'at most':>7}  {'%':>6}"]
        for (_, overlap, area, most), (name, value) in zip(_ROWS, self.named(), strict=True):
            lines.append(f"{name:<6} {overlap:<9}  {area:<7}  {most:>7}  {value:>6}")
        return "\n".join(lines)

    def named(self) -> list[tuple[str, str]]:
        """Give each number's name and the number, - where there is no such object."""
        return [(name, _shown(value)) for name, value in zip(NAMES, self.values, strict=True)]


@dataclass(frozen=True, eq=False)
class DetectionScores:
    """The scores of an evaluation.

    Args:
        boxes: of the boxes.
        masks: of the masks, None where a network gives none.
    """

    boxes: Scores
    masks: Scores | None

    @property
    def scores(self) -> dict[str, float]:
        """The numbers, for a record, such as box_AP; without those of no object."""
        kinds = {"box": self.boxes, **({"mask": self.masks} if self.masks else {})}
        return {
            f"{kind}_{name}": float(value)
            for kind, scores in kinds.items()
            for name, value in zip(NAMES, scores.values, strict=True)
            if not np.isnan(value)
        }

    def __str__(self) -> str:
        mask = f", mask AP {self.masks.ap:.1f} %" if self.masks else ""
        return f"box AP {self.boxes.ap:.1f} %{mask}"

    def table(self, classes: Sequence[str]) -> str:
        """Give a line for each class: name and AP in percent, - where there is no object."""
        columns = {"box AP": self.boxes, **({"mask AP": self.masks} if self.masks else {})}
        width = max(map(len, ("class", *classes)))
        lines = ["  ".join([f"{'class':<{width}}", *(f"{name:>7}" for name in columns)])]
        for index, name in enumerate(classes):
            cells = (f"{_shown(scores.by_class[index]):>7}" for scores in columns.values())
            lines.append("  ".join([f"{name:<{width}}", *cells]))
        return "\n".join(lines)


def _shown(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.2f}"
