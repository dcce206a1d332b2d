"""The numbers of a report: who is taken for whom, how surely, and how rightly so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..data.folder import ImageFolder
from ..evaluation.classification import Evaluation, of_all_ranks

BINS = 15  # of the confidence, as in "On Calibration of Modern Neural Networks" (arXiv 1706.04599)


class Confusion(NamedTuple):
    """The cells of the confusion matrix that are not zero, ordered by class, then prediction."""

    labels: np.ndarray
    predictions: np.ndarray
    images: np.ndarray


class Bin(NamedTuple):
    """The images whose confidence is in (lower, upper]; the means are nan where there is none."""

    lower: float
    upper: float
    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, eq=False)
class Findings:
    """An evaluation of images, beside the truth.

    What is derived here takes the evaluation of all ranks; :meth:`of_all_ranks` gives it.

    Args:
        images: in the order of the evaluation.
        classes: name of each output.
        result: prediction and confidence for each image.
        compared: another network's on the same images, if there is one to compare with.
    """

    images: ImageFolder
    classes: tuple[str, ...]
    result: Evaluation
    compared: Evaluation | None = None

    def of_all_ranks(self, world_size: int) -> Findings:
        """Give every rank what all of them found; to call on every rank."""
        other = self.compared and of_all_ranks(self.compared, world_size)
        return replace(self, result=of_all_ranks(self.result, world_size), compared=other)

    @cached_property
    def right(self) -> np.ndarray:
        """(N,) bool: whether the prediction is the image's class."""
        return self.result.predictions == self.images.labels

    @cached_property
    def mistakes(self) -> np.ndarray:
        """Numbers of the images that are taken for something else, the most confident first."""
        wrong = np.flatnonzero(~self.right)
        return wrong[np.argsort(-self.result.confidences[wrong], kind="stable")]

    @cached_property
    def disagreements(self) -> np.ndarray:
        """Numbers of the images for which the two evaluations predict different classes."""
        assert self.compared is not None
        return np.flatnonzero(self.result.predictions != self.compared.predictions)

    @cached_property
    def confusion(self) -> Confusion:
        """The confusion matrix, sparse: 21,841 classes would fill 4 GB."""
        count = len(self.classes)
        cells = self.images.labels.astype(np.int64) * count + self.result.predictions
        cells, images = np.unique(cells, return_counts=True)
        return Confusion(cells // count, cells % count, images)

    def most_confused(self, count: int) -> Iterator[tuple[int, int, int]]:
        """Class, what it is taken for, and how often: the most frequent pairs of different ones."""
        labels, predictions, images = self.confusion
        wrong = np.flatnonzero(labels != predictions)
        for cell in wrong[np.argsort(-images[wrong], kind="stable")][:count]:
            yield int(labels[cell]), int(predictions[cell]), int(images[cell])

    def per_class(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each class: its images, how many of them are right, how many are taken for it."""
        size, labels = len(self.classes), self.images.labels
        return (
            np.bincount(labels, minlength=size),
            np.bincount(labels[self.right], minlength=size),
            np.bincount(self.result.predictions, minlength=size),
        )

    @cached_property
    def calibration(self) -> tuple[Bin, ...]:
        """Confidence against accuracy, in bins of equal width."""
        edges = np.linspace(0, 1, BINS + 1)
        confidences = self.result.confidences
        places = np.searchsorted(edges[1:-1], confidences)
        return tuple(
            Bin(
                float(edges[number]),
                float(edges[number + 1]),
                int(inside.sum()),
                float(confidences[inside].mean()) if inside.any() else np.nan,
                float(self.right[inside].mean()) if inside.any() else np.nan,
            )
            for number in range(BINS)
            for inside in [places == number]
        )

    @property
    def calibration_error(self) -> float:
        """The expected calibration error: mean distance of confidence and accuracy, over images."""
        filled = [one for one in self.calibration if one.images]
        gaps = sum(one.images * abs(one.accuracy - one.confidence) for one in filled)
        return gaps / len(self.images)
