"""A look at every picture of files of COCO's layout, as training reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...runtime.counted import counted
from ...runtime.errors import UnreadableError, UserError
from ..reading import looked_at, tell
from .annotation_check import ANNOTATIONS, AnnotationFaults
from .annotation_file import read_annotations
from .coco import PREFIX, CocoPictures, evaluation_pictures, read_picture, training_pictures
from .outlines import CODE, NONE, drawn


def holds_annotations(root: Path) -> bool:
    """Tell by its layout whether a folder is COCO's: it has annotations/instances_SPLIT.json."""
    return bool(_splits(root))


def check_coco(root: Path, workers: int) -> int:
    """Print what is wrong with all splits of a folder, how often each class occurs, and a sum.

    Args:
        root: with `annotations/instances_<split>.json` and `<split>`.
        workers: processes that read, at most.

    Returns:
        The number of faults: of pictures that cannot be used, and in the files of annotations.

    Raises:
        UserError: no split has both; a worker has died.
    """
    splits = _splits(root)
    notes = [
        f"{file}: found no {root / split}, so it is left out"
        for split, file in splits.items()
        if not (root / split).is_dir()
    ]
    whole = {
        split: (file, root / split) for split, file in splits.items() if (root / split).is_dir()
    }
    if not whole:
        raise UserError(
            f"{root}: found no pictures of {', '.join(splits)}, expected a folder SPLIT for each "
            f"{ANNOTATIONS}/{PREFIX}SPLIT.json"
        )
    return _check(str(root), whole, notes, workers)


def check_file(file: Path, images: Path | None, workers: int) -> int:
    """Check a file of annotations and its pictures, as :func:`check_coco` does.

    Args:
        file: of the annotations.
        images: folder of the pictures; None for the one that COCO has them in, or else, where the
            file has another name, its own.
        workers: processes that read, at most.

    Raises:
        UserError: the folder is missing; a worker has died.
    """
    split = file.stem.removeprefix(PREFIX)
    if images is None:
        of_coco = file.name.startswith(PREFIX) and file.parent.name == ANNOTATIONS
        images = file.parent.parent / split if of_coco else file.parent
    if not images.is_dir():
        there = "a file" if images.exists() else "no such folder"
        raise UserError(f"{images}: found {there}, expected the pictures of {file}")
    return _check(str(file), {split: (file, images)}, [], workers)


def _splits(root: Path) -> dict[str, Path]:
    """The files of annotations by the name of their splits."""
    files = sorted((root / ANNOTATIONS).glob(f"{PREFIX}*.json"))
    return {file.stem.removeprefix(PREFIX): file for file in files}


def _check(name: str, splits: dict[str, tuple[Path, Path]], notes: list[str], workers: int) -> int:
    faults = unusable = 0
    read: dict[str, CocoPictures] = {}
    for split, (path, images) in splits.items():
        try:
            file = read_annotations(path)
        except AnnotationFaults as error:
            for fault in error.faults:
                tell(str(path), fault)
            faults += len(error.faults)
            continue
        read[split] = evaluation_pictures(file, images)
        notes += _notes(read[split])
    tasks = [task for pictures in read.values() for task in _tasks(pictures)]
    with closing(looked_at(_look, tasks, workers, "img")) as looks:
        for _, unread in looks:
            if unread:
                unusable += 1
                tell(*unread)
    for line in (*notes, *_table(read)):
        print(line)
    print(
        f"{name}: {unusable:,} of {counted(len(tasks), 'picture')} cannot be used, "
        f"{counted(faults, 'fault')} in {counted(len(splits), 'file')} of annotations"
    )
    return unusable + faults


def _notes(pictures: CocoPictures) -> list[str]:
    """A line each on what training leaves out, and what it cannot do."""
    file = pictures.file
    try:
        notes = list(training_pictures(file, pictures.root, masks=False).notes)
    except UserError as error:  # such as a file without annotations, for a test
        notes = [*pictures.notes, str(error)]
    kept = pictures.labels >= 0
    if missing := (kept & (file.outlines.kinds == NONE)).sum():
        notes.append(
            f"{file.path}: {counted(missing, 'object')} of {kept.sum():,} without an outline: "
            "boxes can be trained on, masks cannot"
        )
    return notes


@dataclass(frozen=True)
class _Task:
    """What a worker needs of a picture, without the file's arrays.

    Args:
        path: of the picture.
        size: height and width that the annotations tell.
        annotations: path of their file.
        codes: annotation and text of each outline that is coded, which alone may be damaged yet.
    """

    path: str
    size: tuple[int, int]
    annotations: Path
    codes: tuple[tuple[int, bytes], ...]


def _tasks(pictures: CocoPictures) -> Iterator[_Task]:
    file = pictures.file
    for index, (height, width) in enumerate(pictures.sizes.tolist()):
        start, end = file.first[index : index + 2].tolist()
        coded = start + np.flatnonzero(file.outlines.kinds[start:end] == CODE)
        codes = [(int(file.ids[n]), file.outlines.parts(n)[0].tobytes()) for n in coded.tolist()]
        yield _Task(pictures.files(index)[0], (height, width), file.path, tuple(codes))


def _look(task: _Task) -> tuple[str, str] | None:
    """Give path and reason of a fault, None if a picture and its outlines can be read."""
    try:
        read_picture(task.path, *task.size, task.annotations)
    except UnreadableError as error:
        return error.path, error.reason
    for annotation, code in task.codes:
        try:
            drawn(CODE, [np.frombuffer(code, np.uint8)], *task.size)
        except ValueError as error:
            return task.path, f"annotation {annotation} of {task.annotations}: {error}"
    return None


def _table(read: dict[str, CocoPictures]) -> Iterator[str]:
    """A line for each class, with pictures and objects of each split that training takes."""
    if not read:
        return
    classes = list(dict.fromkeys(name for pictures in read.values() for name in pictures.classes))
    rows = [["class", *(f"{split} {what}" for split in read for what in ("pictures", "objects"))]]
    columns = [counts for pictures in read.values() for counts in _counts(pictures, classes)]
    for index, name in enumerate(classes):
        rows.append([f"{index} {name}", *(column[index] for column in columns)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *numbers in rows:
        cells = (f"{text:>{width}}" for text, width in zip(numbers, widths[1:], strict=True))
        yield "  ".join((f"{first:<{widths[0]}}", *cells))


def _counts(pictures: CocoPictures, classes: Sequence[str]) -> tuple[list[str], list[str]]:
    """On how many pictures of a split each class is, and how often; "-" where it is not listed."""
    file, labels = pictures.file, pictures.labels
    kept = labels >= 0
    objects = np.bincount(labels[kept], minlength=len(pictures.classes))
    pairs = np.unique(np.stack([file.pictures[kept], labels[kept]]), axis=1)
    on = np.bincount(pairs[1], minlength=len(pictures.classes))
    index_of = {name: index for index, name in enumerate(pictures.classes)}
    on_all, in_all = (
        [f"{counts[index_of[name]]:,}" if name in index_of else "-" for name in classes]
        for counts in (on, objects)
    )
    return on_all, in_all
