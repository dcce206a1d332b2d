"""A look at every scene of a folder, as training reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ...runtime.counted import counted
from ...runtime.errors import UnreadableError, UserError
from ..folder import class_folders
from ..reading import looked_at, tell
from . import ade20k
from .scenes import (
    ANNOTATIONS,
    CLASSES,
    IGNORED,
    IMAGES,
    check_classes,
    pair_scenes,
    read_classes,
    read_scene,
)

UNLABELLED = "unlabelled"


def holds_scenes(root: Path) -> bool:
    """Tell by its layout whether a folder is one of scenes: it has a split of both kinds.

    Raises:
        UserError: a folder cannot be read.
    """
    splits, _ = _splits(root)
    return bool(splits) or ((root / CLASSES).is_file() and (root / IMAGES).is_dir())


def check_scenes(root: Path, workers: int, reduce_zero_label: bool | None) -> int:
    """Print what is wrong with each scene of all splits, how often each class occurs, and a sum.

    Args:
        root: with `images/<split>` and `annotations/<split>`, and `classes.txt` unless the classes
            are those of ADE20K.
        workers: processes that read, at most.
        reduce_zero_label: of labels with a `classes.txt`, None for true; see SceneFolder.

    Returns:
        The number of scenes that cannot be used.

    Raises:
        UserError: a folder cannot be read or holds no image, or there is no split of both kinds;
            the classes cannot be read, or are more than a label has room for; a worker has died.
    """
    classes, zero = _classes(root, reduce_zero_label)
    splits, notes = _splits(root)
    if not splits:
        raise UserError(
            f"{root}: found no split that is in both {IMAGES} and {ANNOTATIONS}, expected "
            f"{IMAGES}/<split> and {ANNOTATIONS}/<split>"
        )
    faulty = 0
    scenes: list[tuple[str, str, str]] = []
    counts = {split: _Counts.none() for split in splits}
    for split in splits:
        try:
            pairs = pair_scenes(root, split)
        except UserError as error:  # such as a test split without labels
            del counts[split]
            if not counts:
                raise
            notes.append(f"{error}; {split} is left out")
            continue
        for fault in pairs.faults:
            tell(fault.path, fault.reason)
        faulty += len(pairs.faults)
        notes += pairs.notes
        scenes += ((split, *files) for files in zip(pairs.images, pairs.labels, strict=True))
    total = faulty + len(scenes)
    look = partial(_look, num_classes=len(classes), reduce_zero_label=zero)
    with closing(looked_at(look, scenes, workers, "scene")) as looks:
        for (split, *_), seen in looks:
            if isinstance(seen, tuple):
                faulty += 1
                tell(*seen)
            else:
                counts[split].add(seen)
    for line in (*notes, *_table(classes, counts)):
        print(line)
    origin = f"ADE20K, as there is no {CLASSES}"
    if (root / CLASSES).exists():
        origin = f"{CLASSES}, reduce_zero_label {str(zero).lower()}"
    print(
        f"{root}: {faulty:,} of {counted(total, 'scene')} cannot be used, with the "
        f"{counted(len(classes), 'class')} of {origin}"
    )
    return faulty


def _classes(root: Path, reduce_zero_label: bool | None) -> tuple[tuple[str, ...], bool]:
    """The names of the classes, and whether 0 means unlabelled."""
    if (root / CLASSES).exists():
        classes, zero = read_classes(root / CLASSES), reduce_zero_label is not False
    elif reduce_zero_label is False:
        raise UserError(
            f"reduce_zero_label: found false with {root}, which has no {CLASSES}, expected true: "
            "in ADE20K 0 means unlabelled"
        )
    else:
        classes, zero = ade20k.names(), True
    check_classes(root, classes, reduce_zero_label=zero)
    return classes, zero


def _splits(root: Path) -> tuple[list[str], list[str]]:
    """Names of the splits of both kinds, and a line on each that is of one."""
    kinds = (IMAGES, ANNOTATIONS)
    pictures, labels = (
        class_folders(root / kind) if (root / kind).is_dir() else [] for kind in kinds
    )
    both = [name for name in pictures if name in labels]
    notes = []
    for kind, other, names in ((*kinds, pictures), (*kinds[::-1], labels)):
        notes += [
            f"{root / kind / name}: found no {root / other / name}, so it is left out"
            for name in names
            if name not in both
        ]
    return both, notes


def _look(
    scene: tuple[str, str, str], num_classes: int, reduce_zero_label: bool
) -> tuple[str, str] | np.ndarray:
    """Give how many pixels have each value from 0 to IGNORED, or path and reason of a fault."""
    _, image, label = scene
    try:
        _, values = read_scene(image, label, num_classes, reduce_zero_label)
    except UnreadableError as error:
        return error.path, error.reason
    return np.bincount(values.ravel(), minlength=IGNORED + 1)


@dataclass(frozen=True, eq=False)
class _Counts:
    """In how many scenes of a split, and on how many of their pixels, each value is."""

    scenes: np.ndarray
    pixels: np.ndarray

    @classmethod
    def none(cls) -> _Counts:
        return cls(*np.zeros((2, IGNORED + 1), np.int64))

    def add(self, pixels: np.ndarray) -> None:
        self.scenes[...] += pixels > 0
        self.pixels[...] += pixels


def _table(classes: Sequence[str], counts: dict[str, _Counts]) -> Iterator[str]:
    """A line for each class, with scenes and pixels of each split."""
    rows = [["class", *(f"{split} {what}" for split in counts for what in ("scenes", "pixels"))]]
    for index, name in (*enumerate(classes), (IGNORED, UNLABELLED)):
        row = [name if index == IGNORED else f"{index} {name}"]
        for each in counts.values():
            row += [f"{each.scenes[index]:,}", f"{each.pixels[index]:,}"]
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *numbers in rows:
        cells = (f"{text:>{width}}" for text, width in zip(numbers, widths[1:], strict=True))
        yield "  ".join((f"{first:<{widths[0]}}", *cells))
