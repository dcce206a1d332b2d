"""The report on a segmentation: what each scene was labelled, and how well each class is found."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from ..data.preprocess import open_image
from ..data.segmentation.scenes import IGNORED, IMAGES, SceneFolder
from ..evaluation.miou import SegmentationScores
from ..runtime.collectives import all_reduce_sum, barrier
from ..runtime.errors import UserError
from ..runtime.figures import drawn, short
from ..runtime.files import replaced_folder
from ..runtime.launch import World
from ..runtime.lock import SEEN_SECONDS
from .folder import DESCRIPTION
from .page import PAGE, page_of, table
from .tables import percent, write_csv

LABELS, COLOURED = "labels", "coloured"
WORST = 6  # scenes on the sheet
THUMBNAIL = 384  # pixels
MOST_NAMED = 30  # classes with a name beside the confusion matrix


class SceneReport:
    """Takes in what a network says of scenes, while it is evaluated, and writes a report of it.

    Entering raises UserError: the place cannot be written to, or is another one for some ranks.

    All ranks take part; each writes its own scenes' labels beside ``folder``, which must be one
    place for all of them, and the main one puts the whole in its place.

    Args:
        folder: of the report; :func:`folder.check_target` has allowed it.
        scenes: all of them, in their order.
        palette: a colour for each class, (K, 3) uint8.
        world: the ranks.
    """

    def __init__(
        self, folder: Path, scenes: SceneFolder, palette: np.ndarray, world: World
    ) -> None:
        self.folder = folder
        self.scenes = scenes
        self.palette = palette
        self.world = world
        self._part = folder.absolute().with_name(f".{folder.name}.part")
        self._right = np.zeros((len(scenes), 2), np.int64)  # labelled pixels, those found

    def __enter__(self) -> SceneReport:
        if self.world.is_main:
            shutil.rmtree(self._part, ignore_errors=True)
            try:
                self._part.mkdir(parents=True)
            except OSError as error:
                raise UserError(
                    f"{self.folder}: cannot be written ({error.strerror}), expected a place to "
                    "write to"
                ) from None
        barrier(self.world.size)
        self._check_shared()
        return self

    def _check_shared(self) -> None:
        """Refuse a place that other ranks do not see, before the work."""
        deadline = time.monotonic() + SEEN_SECONDS
        while not self._part.is_dir() and time.monotonic() < deadline:
            time.sleep(0.1)
        size = self.world.size
        seen = int(all_reduce_sum(np.array([self._part.is_dir()], np.int64), size)[0])
        if seen < size:
            self._remove_part()
            raise UserError(
                f"report: found {self.folder} to be one place for {seen} of {size} ranks, expected "
                "a folder that all hosts share"
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._remove_part()

    def _remove_part(self) -> None:
        if self.world.is_main:
            shutil.rmtree(self._part, ignore_errors=True)

    def see(self, number: int, predicted: np.ndarray, label: np.ndarray) -> None:
        """Take in one scene.

        Args:
            number: among those of this rank.
            predicted: class of each pixel, (H, W).
            label: the true one, IGNORED where there is none.
        """
        scene = self.world.rank + number * self.world.size
        labelled = label != IGNORED
        self._right[scene] = labelled.sum(), (predicted == label)[labelled].sum()
        name = self._name(scene)
        classes = predicted.astype(np.uint8)
        self._save(LABELS, name, Image.fromarray(classes + self.scenes.reduce_zero_label))
        self._save(COLOURED, name, Image.fromarray(self._coloured(classes)))

    def _name(self, scene: int) -> Path:
        path = Path(self.scenes.images[scene]).relative_to(self.scenes.root / IMAGES)
        return Path(*path.parts[1:]).with_suffix(".png")

    def _save(self, kind: str, name: Path, image: Image.Image) -> None:
        path = self._part / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)

    def _coloured(self, classes: np.ndarray) -> np.ndarray:
        """Colours (H, W, 3) of classes (H, W); where there is none, grey."""
        colours = np.full((256, 3), 127, np.uint8)
        colours[: len(self.palette)] = self.palette
        return colours[classes]

    def write(self, scores: SegmentationScores, facts: Mapping[str, Any]) -> None:
        """Write the report, once all ranks have seen their scenes; to call on every rank.

        Args:
            scores: of all scenes.
            facts: what was validated and how, and its scores; for ``report.json`` and the page.
        """
        right = all_reduce_sum(self._right, self.world.size)
        if not self.world.is_main:
            return
        accuracy = np.where(right[:, 0] > 0, 100 * right[:, 1] / np.maximum(right[:, 0], 1), np.nan)
        worst = np.argsort(accuracy, kind="stable")[: min(WORST, len(self.scenes))]
        with replaced_folder(self.folder) as staging:
            for kind in (LABELS, COLOURED):
                (self._part / kind).rename(staging / kind)
            self._write_tables(staging, scores, accuracy)
            draw_confusion(staging / "confusion.png", scores, self.scenes.classes)
            self._draw_worst(staging / "worst.png", worst, accuracy)
            files = {
                "per_class.csv": "IoU and accuracy of each class",
                "confusion.csv": "pixels of each class by the class predicted; zeros are left out",
                "scenes.csv": "share of the labelled pixels of each scene that is found",
                f"{LABELS}/": "what the network says, in the numbering of the data set's labels",
                f"{COLOURED}/": "the same in colours",
            }
            pictures = {
                "confusion.png": "What is taken for what",
                "worst.png": "The scenes with the lowest accuracy: picture, label, prediction",
            }
            description = {**facts, "report": [PAGE, *files, *pictures]}
            (staging / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
            told = [
                (key, str(facts[key]))
                for key in ("checkpoint", "bundle", "data", "amp_level")
                if key in facts
            ]
            rows = [*told, ("scenes", str(len(self.scenes))), ("result", str(scores))]
            page = page_of(str(facts["model"]), staging, table(rows), pictures, files)
            (staging / PAGE).write_text(page, encoding="utf-8")

    def _write_tables(self, folder: Path, scores: SegmentationScores, accuracy: np.ndarray) -> None:
        names = self.scenes.classes
        write_csv(
            folder / "per_class.csv",
            ("index", "class", "iou", "accuracy", "pixels", "predicted"),
            zip(
                range(len(names)),
                names,
                map(percent, scores.iou),
                map(percent, scores.accuracy),
                scores.counts.sum(axis=1),
                scores.counts.sum(axis=0),
                strict=True,
            ),
        )
        write_csv(
            folder / "confusion.csv",
            ("index", "predicted_index", "pixels"),
            ((*cell, scores.counts[tuple(cell)]) for cell in np.argwhere(scores.counts)),
        )
        write_csv(
            folder / "scenes.csv",
            ("path", "accuracy"),
            zip(self.scenes.images, map(percent, accuracy), strict=True),
        )

    def _draw_worst(self, path: Path, worst: np.ndarray, accuracy: np.ndarray) -> None:
        with drawn(path, 9, 2.6 * len(worst)) as figure:
            grid = figure.subplots(len(worst), 3, squeeze=False)
            for scene, row in zip(worst, grid, strict=True):
                picture = open_image(self.scenes.images[scene])
                _, label = self.scenes.read(int(scene))
                said = Image.open(path.parent / COLOURED / self._name(int(scene)))
                shown = (picture, Image.fromarray(self._coloured(label)), said)
                for axes, image in zip(row, shown, strict=True):
                    axes.set(xticks=[], yticks=[])
                    image.thumbnail((THUMBNAIL, THUMBNAIL))
                    axes.imshow(image)
                name = short(self._name(int(scene)).name)
                row[0].set_title(f"{name}: {percent(accuracy[scene])} %", fontsize=8)


def draw_confusion(path: Path, scores: SegmentationScores, classes: Sequence[str]) -> None:
    """Draw the confusion matrix: the share of each class's pixels by the class predicted."""
    from matplotlib.colors import PowerNorm

    totals = scores.counts.sum(axis=1, keepdims=True)
    share = 100 * scores.counts / np.maximum(totals, 1)
    with drawn(path, 8, 7) as figure:
        axes = figure.subplots()
        shown = axes.imshow(share, cmap="plasma_r", norm=PowerNorm(0.5, 0, 100))
        axes.set(xlabel="predicted class", ylabel="class", title=str(scores))
        if len(classes) <= MOST_NAMED:
            names = list(map(short, classes))
            axes.set_xticks(range(len(names)), names, rotation=90)
            axes.set_yticks(range(len(names)), names)
        figure.colorbar(shown, ax=axes, shrink=0.8, label="% of the class's pixels")
