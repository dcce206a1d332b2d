"""The pictures of a report, readable for 10 classes and for 1,000."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data.preprocess import open_image
from ..runtime.counted import counted
from ..runtime.figures import drawn, short
from .findings import BINS, Findings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_NAMES = 40  # of classes along an axis
MOST_NUMBERS = 20  # classes whose cells have room for a number
MOST_BARS = 30
SHEET = (6, 4)  # columns and rows
THUMBNAIL = 256  # pixels


def draw_confusion(path: Path, findings: Findings) -> None:
    """Draw the confusion matrix: a square for each cell that is not zero.

    However many classes there are, a square is large enough to be seen: a cell of a thousand
    classes in a row would be smaller than a pixel.
    """
    from matplotlib.colors import PowerNorm

    labels, predictions, images = findings.confusion
    share = images / np.bincount(labels, weights=images)[labels]
    count, edge = len(findings.classes), 6.5 if len(findings.classes) <= MOST_NUMBERS else 8.5
    order = np.argsort(share)  # what is more frequent lies above its neighbours
    with drawn(path, edge + 1.5, edge + 0.5) as figure:
        axes = figure.subplots()
        axes.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5), aspect="equal")
        axes.set(xlabel="predicted class", ylabel="class")
        axes.set_title(
            f"top-1 {findings.result.top1:.2f} % of {counted(len(findings.images), 'image')}"
        )
        _name_axis(axes, findings.classes)
        side = max(0.93 * 72 * (edge - 1.6) / count, 1.8)  # points
        squares = axes.scatter(
            predictions[order],
            labels[order],
            s=side**2,
            c=100 * share[order],
            marker="s",
            linewidths=0,
            cmap="plasma_r",
            norm=PowerNorm(0.5, 0, 100),  # the few per cent of a mistake are to be told apart
        )
        if count <= MOST_NUMBERS:
            for label, prediction, number, part in zip(
                labels, predictions, images, share, strict=True
            ):
                axes.text(
                    prediction,
                    label,
                    number,
                    ha="center",
                    va="center",
                    fontsize=9,
                    color="white" if part > 0.3 else "black",
                )
        figure.colorbar(squares, ax=axes, shrink=0.8, label="% of the class's images")


def _name_axis(axes: Axes, classes: tuple[str, ...]) -> None:
    """Name the classes on both axes while there is room; else their numbers tell."""
    if len(classes) > MOST_NAMES:
        axes.set(xlabel="index of the predicted class", ylabel="index of the class")
        return
    names = list(map(short, classes))
    axes.set_xticks(range(len(names)), names, rotation=0 if max(map(len, names)) < 4 else 90)
    axes.set_yticks(range(len(names)), names)


def draw_per_class(path: Path, findings: Findings) -> None:
    """Draw the accuracy of each class, or of the worst ones, the worst on top."""
    images, correct, _ = findings.per_class()
    seen = np.flatnonzero(images)
    accuracy = 100 * correct[seen] / images[seen]
    worst = np.argsort(accuracy, kind="stable")[:MOST_BARS]
    names = [f"{short(findings.classes[c])} ({images[c]})" for c in seen[worst]]
    with drawn(path, 8, 1.2 + 0.24 * len(worst)) as figure:
        axes = figure.subplots()
        bars = axes.barh(range(len(worst)), accuracy[worst], color="tab:blue")
        axes.axvline(findings.result.top1, color="black", ls="--", lw=1)
        white = {"facecolor": "white", "linewidth": 0, "pad": 1}
        axes.bar_label(bars, fmt="%.1f", padding=4, fontsize=8, bbox=white)
        axes.set_yticks(range(len(worst)), names, fontsize=8)
        axes.set(xlim=(0, 108), ylim=(len(worst) - 0.4, -0.6), xlabel="top-1 (%)")
        axes.set_ylabel("class (images)")
        few = f"the {len(worst)} worst of " if len(worst) < len(seen) else ""
        axes.set_title(
            f"{few}{counted(len(seen), 'class')}; dashed: all images, {findings.result.top1:.1f}"
        )


def draw_calibration(path: Path, findings: Findings) -> None:
    """Draw the reliability diagram, and below it where the images are."""
    bins = findings.calibration
    centres = [(one.lower + one.upper) / 2 for one in bins]
    confidence = np.array([one.confidence for one in bins])
    accuracy = np.array([one.accuracy for one in bins])
    with drawn(path, 6, 6.5) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        width = 1 / BINS
        upper.bar(centres, accuracy, 0.95 * width, color="tab:blue", label="accuracy")
        upper.bar(
            centres,
            confidence - accuracy,
            0.95 * width,
            bottom=accuracy,
            facecolor="none",
            edgecolor="tab:red",
            hatch="///",
            label="gap to the confidence",
        )
        upper.plot([0, 1], [0, 1], color="black", ls="--", lw=1, label="perfect")
        upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
        upper.set_title(f"expected calibration error {findings.calibration_error:.2%}")
        lower.bar(centres, [one.images for one in bins], 0.95 * width, color="tab:gray")
        lower.set(xlabel="confidence: probability of the predicted class", ylabel="images")
        figure.legend(loc="outside lower center", ncols=3)


def draw_mistakes(path: Path, findings: Findings) -> None:
    """Draw the most confident mistakes: the whole picture, its class, and what it is taken for."""
    columns, rows = SHEET
    worst = findings.mistakes[: columns * rows]
    columns, rows = min(columns, len(worst)), -(-len(worst) // columns)
    result, classes = findings.result, findings.classes
    with drawn(path, 1.9 * max(columns, 2), 2.5 * rows) as figure:
        grid = list(figure.subplots(rows, columns, squeeze=False).flat)
        for unused in grid[len(worst) :]:
            unused.remove()
        for number, axes in zip(worst, grid, strict=False):
            axes.set(xticks=[], yticks=[], anchor="S")
            image = open_image(findings.images.paths[number])
            image.thumbnail((THUMBNAIL, THUMBNAIL))
            axes.imshow(image)
            said = short(classes[result.predictions[number]])
            axes.set_title(
                f"{short(classes[findings.images.labels[number]])}\n"
                f"→ {said}\n{result.confidences[number]:.1%}",
                fontsize=8,
            )
