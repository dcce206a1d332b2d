"""The report on a detection: precision and recall, AP by class, pictures with mistakes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as coco_mask

from ..data.detection.coco import CocoPictures
from ..evaluation.coco_scores import OVERLAPS, RECALLS
from ..evaluation.detection import DetectionEvaluation
from ..evaluation.detections import Detections
from ..runtime.figures import drawn, short
from ..runtime.files import replaced_folder
from .folder import DESCRIPTION
from .page import PAGE, page_of, table
from .tables import percent, write_csv

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SURE = 0.3  # scores of the boxes that are shown and counted as mistakes
MATCHED = 0.5  # overlap from which on a box is that of an object
WORST = 6  # pictures on the sheet
_SHOWN = (0.5, 0.75, 0.9)  # overlaps that have a curve of their own


@dataclass(frozen=True, eq=False)
class Matched:
    """What is found on a picture beside what is there.

    Args:
        objects: (m, 4), the true boxes, corners in pixels.
        of_objects: (m,), their classes.
        boxes: (n, 4), those found with a score of SURE or more.
        of_boxes: (n,), their classes.
        scores: (n,).
        missed: (m,) bool, the objects that no box is of.
        wrong: (n,) bool, the boxes that are of no object.
    """

    objects: np.ndarray
    of_objects: np.ndarray
    boxes: np.ndarray
    of_boxes: np.ndarray
    scores: np.ndarray
    missed: np.ndarray
    wrong: np.ndarray

    @property
    def mistakes(self) -> int:
        return int(self.missed.sum() + self.wrong.sum())


def matched(detections: Detections, number: int) -> Matched:
    """Match the boxes on a picture with its objects.

    The surest box comes first; each takes the object of its class, of those left, that it overlaps
    most. Objects that training leaves out, such as crowds, are no objects here.
    """
    pictures = detections.pictures
    rows = pictures.objects(number)
    truth, of_objects = pictures.file.boxes[rows].astype(np.float64), pictures.labels[rows]
    boxes, scores, labels = detections.found(number)
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= SURE]
    boxes, scores, labels = boxes[order], scores[order], labels[order]
    edges = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).astype(np.float64)
    missed, wrong = np.ones(len(rows), bool), np.ones(len(boxes), bool)
    if len(rows) and len(boxes):
        overlaps = coco_mask.iou(edges, truth, np.zeros(len(rows), np.uint8))
        overlaps = np.where(labels[:, None] == of_objects, overlaps, 0)
        for box, overlap in enumerate(overlaps):
            best = int(np.argmax(np.where(missed, overlap, -1)))
            if missed[best] and overlap[best] >= MATCHED:
                missed[best] = wrong[box] = False
    corners = np.concatenate([truth[:, :2], truth[:, :2] + truth[:, 2:]], 1)
    return Matched(corners, of_objects, boxes, labels, scores, missed, wrong)


def write_report(
    folder: Path, pictures: CocoPictures, result: DetectionEvaluation, facts: Mapping[str, Any]
) -> None:
    """Write a report; ``folder`` holds all of it or is as before.

    Args:
        folder: see :func:`folder.check_target`.
        pictures: all of them.
        result: of all of them.
        facts: what was validated and how, and its scores; for ``report.json`` and the page.

    Raises:
        UserError: the folder cannot be written.
    """
    every = [matched(result.detections, number) for number in range(len(pictures))]
    worst = sorted(range(len(every)), key=lambda number: -every[number].mistakes)[:WORST]
    with replaced_folder(folder) as staging:
        results = result.detections.write(staging)
        _write_tables(staging, pictures, result, every)
        draw_curves(staging / "precision_recall.png", result)
        draw_pictures(staging / "worst.png", pictures, worst, every)
        files = {
            "per_class.csv": "AP of each class",
            "pictures.csv": f"objects found and missed, and boxes of none, of {SURE} or surer",
            **{path.name: "what is found on each picture, in COCO's format" for path in results},
        }
        shown = {
            "precision_recall.png": "How much is found, and how much of it is right",
            "worst.png": "The pictures with the most mistakes",
        }
        description = {**facts, "report": [PAGE, *files, *shown]}
        (staging / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
        keys = ("checkpoint", "bundle", "data", "amp_level")
        rows = [(key, str(facts[key])) for key in keys if key in facts]
        rows += [("pictures", str(len(pictures))), ("result", str(result))]
        rows += result.found.boxes.named()
        if result.found.masks:
            rows += [(f"{name} of masks", value) for name, value in result.found.masks.named()]
        page = page_of(str(facts["model"]), staging, table(rows), shown, files)
        (staging / PAGE).write_text(page, encoding="utf-8")


def _write_tables(
    folder: Path, pictures: CocoPictures, result: DetectionEvaluation, every: Sequence[Matched]
) -> None:
    counts = np.bincount(pictures.labels[pictures.labels >= 0], minlength=len(pictures.classes))
    kinds = {"box_ap": result.found.boxes}
    if result.found.masks:
        kinds["mask_ap"] = result.found.masks
    write_csv(
        folder / "per_class.csv",
        ("index", "category_id", "class", *kinds, "objects"),
        (
            (
                index,
                pictures.category_ids[index],
                name,
                *(percent(scores.by_class[index]) for scores in kinds.values()),
                counts[index],
            )
            for index, name in enumerate(pictures.classes)
        ),
    )
    write_csv(
        folder / "pictures.csv",
        ("path", "objects", "found", "missed", "wrong"),
        (
            (
                pictures.files(number)[0],
                len(one.objects),
                len(one.objects) - one.missed.sum(),
                one.missed.sum(),
                one.wrong.sum(),
            )
            for number, one in enumerate(every)
        ),
    )


def draw_curves(path: Path, result: DetectionEvaluation) -> None:
    """Draw precision against recall, the mean over the classes, at some overlaps and over all."""
    kinds = {"boxes": result.found.boxes}
    if result.found.masks:
        kinds["masks"] = result.found.masks
    with drawn(path, 5.5 * len(kinds), 4.5) as figure:
        grid = figure.subplots(1, len(kinds), squeeze=False)[0]
        for (kind, scores), axes in zip(kinds.items(), grid, strict=True):
            curves = 100 * scores.curves
            for overlap in _SHOWN:
                place = int(np.argmin(np.abs(OVERLAPS - overlap)))
                ap = curves[place].mean()
                axes.plot(100 * RECALLS, curves[place], label=f"IoU {overlap:.2f}: AP {ap:.1f}")
            label = f"0.50 to 0.95: AP {scores.ap:.1f}"
            axes.plot(100 * RECALLS, curves.mean(0), color="black", ls="--", label=label)
            axes.set(xlim=(0, 100), ylim=(0, 101), xlabel="recall (%)", ylabel="precision (%)")
            axes.set_title(f"{kind}, mean of the classes")
            axes.legend(fontsize=8)


def draw_pictures(
    path: Path, pictures: CocoPictures, numbers: Sequence[int], every: Sequence[Matched]
) -> None:
    """Draw pictures with their objects, and beside each with what is found."""
    with drawn(path, 9, 4.2 * len(numbers)) as figure:
        grid = figure.subplots(len(numbers), 2, squeeze=False)
        for number, (left, right) in zip(numbers, grid, strict=True):
            one, pixels = every[number], pictures.pixels(number)
            for axes in (left, right):
                axes.imshow(pixels)
                axes.set(xticks=[], yticks=[])
            said = f"{one.missed.sum()} of {len(one.objects)} missed"
            left.set_title(f"{short(Path(pictures.files(number)[0]).name)}: {said}", fontsize=8)
            right.set_title(f"{one.wrong.sum()} of {len(one.boxes)} boxes of no object", fontsize=8)
            names = [short(pictures.classes[label]) for label in one.of_objects]
            _draw_boxes(left, one.objects, names, one.missed)
            labels = zip(one.of_boxes, one.scores, strict=True)
            names = [f"{short(pictures.classes[label])} {score:.2f}" for label, score in labels]
            _draw_boxes(right, one.boxes, names, one.wrong)


def _draw_boxes(axes: Axes, boxes: np.ndarray, names: Iterable[str], amiss: np.ndarray) -> None:
    """Right ones in green; what is amiss in red."""
    from matplotlib.patches import Rectangle

    for (x, y, right, bottom), name, bad in zip(boxes.tolist(), names, amiss, strict=True):
        colour = "tab:red" if bad else "tab:green"
        axes.add_patch(Rectangle((x, y), right - x, bottom - y, fill=False, ec=colour, lw=1.5))
        white = {"facecolor": colour, "linewidth": 0, "pad": 0.5}
        axes.text(x, y, name, fontsize=6, color="white", va="top", bbox=white, clip_on=True)
