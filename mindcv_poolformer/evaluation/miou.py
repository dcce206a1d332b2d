"""How well classes are found pixel by pixel: IoU and accuracy over all scenes, on any ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data.segmentation.scenes import IGNORED
from ..runtime.collectives import all_reduce_sum
from ..runtime.errors import UserError


class Confusion:
    """Counts pixels by their class and the one predicted, as integers, which add up exactly.

    Args:
        num_classes: how many classes there are.
    """

    def __init__(self, num_classes: int) -> None:
        self.counts = np.zeros((num_classes, num_classes), np.int64)  # [class, predicted]

    def add(self, predictions: np.ndarray, labels: np.ndarray) -> None:
        """Count the pixels of a scene, or of several, without those labelled IGNORED.

        Args:
            predictions: integers of any shape, the predicted classes.
            labels: integers of the same shape, the true ones.

        Raises:
            ValueError: the shapes differ, or a value stands for no class.
        """
        if predictions.shape != labels.shape:
            raise ValueError(f"predictions {predictions.shape} for labels {labels.shape}")
        labelled = labels != IGNORED
        rows, columns = (x[labelled].astype(np.int64) for x in (labels, predictions))
        classes = len(self.counts)
        for name, values in (("label", rows), ("prediction", columns)):
            if values.size and not 0 <= values.min() <= values.max() < classes:
                wrong = values.max() if values.max() >= classes else values.min()
                raise ValueError(f"{name} {wrong} with {classes} classes")
        pairs = np.bincount(classes * rows + columns, minlength=classes * classes)
        self.counts += pairs.reshape(classes, classes)

    def scores(self, world_size: int = 1) -> SegmentationScores:
        """Give the scores of what all ranks have counted; to call on every rank.

        Raises:
            UserError: no pixel was labelled.
        """
        counts = all_reduce_sum(self.counts, world_size)
        if not counts.any():
            raise UserError("validation: found no labelled pixel, expected some to compare with")
        return SegmentationScores(counts)


@dataclass(frozen=True, eq=False)
class SegmentationScores:
    """The scores of a confusion matrix, in percent, as MMSegmentation defines them.

    Args:
        counts: (K, K) int64, pixels of each class by the class predicted.
    """

    counts: np.ndarray

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union of each class (K,), NaN for one neither there nor predicted."""
        union = self.counts.sum(axis=0) + self.counts.sum(axis=1) - self.counts.diagonal()
        return _percent(self.counts.diagonal(), union)

    @property
    def accuracy(self) -> np.ndarray:
        """Share of each class's pixels that are found (K,), NaN for a class that has none."""
        return _percent(self.counts.diagonal(), self.counts.sum(axis=1))

    @property
    def miou(self) -> float:
        """Mean of the classes' IoU, without NaN."""
        return float(np.nanmean(self.iou))

    @property
    def macc(self) -> float:
        """Mean of the classes' accuracy, without NaN."""
        return float(np.nanmean(self.accuracy))

    @property
    def aacc(self) -> float:
        """Share of all labelled pixels whose class is found."""
        return float(100 * self.counts.trace() / self.counts.sum())

    @property
    def scores(self) -> dict[str, float]:
        """The numbers, for a record."""
        return {"mIoU": self.miou, "mAcc": self.macc, "aAcc": self.aacc}

    def __str__(self) -> str:
        return f"mIoU {self.miou:.2f} %, mAcc {self.macc:.2f} %, aAcc {self.aacc:.2f} %"

    def table(self, classes: Sequence[str]) -> str:
        """Give a line for each class: name, IoU and accuracy in percent, - where NaN."""
        width = max(map(len, ("class", *classes)))
        lines = [f"{'class':<{width}}  {'IoU':>6}  {'Acc':>6}"]
        for name, *values in zip(classes, self.iou, self.accuracy, strict=True):
            shown = (f"{'-' if np.isnan(value) else f'{value:.2f}':>6}" for value in values)
            lines.append("  ".join([f"{name:<{width}}", *shown]))
        return "\n".join(lines)


def _percent(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """100 * parts / wholes as float64, NaN where a whole is 0."""
    return 100 * np.divide(parts, wholes, out=np.full(len(wholes), np.nan), where=wholes > 0)
