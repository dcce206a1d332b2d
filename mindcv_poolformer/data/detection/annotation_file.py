"""Annotation files of COCO's layout, as a few arrays: 860,000 objects would be as many dicts."""

from __future__ import annotations

import gc
import json
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.files import read_text
from .annotation_check import (
    ANNOTATIONS,
    CATEGORIES,
    IMAGES,
    OUTLINE,
    AnnotationCheck,
    AnnotationFaults,
    shown,
)
from .outlines import Outline, Outlines


@dataclass(frozen=True, eq=False)
class AnnotationFile:
    """What a file tells of N pictures and of A objects on them, which are grouped by picture.

    Args:
        path: of the file.
        classes: names of the K categories, in the file's order.
        category_ids: (K,) int64, their numbers, which need not be 1 to K.
        picture_ids: (N,) int64.
        names: paths of the pictures within their folder.
        sizes: (N, 2) int32, height and width of each picture.
        first: (N + 1,) int64: the objects of picture i are first[i] to first[i + 1] - 1.
        ids: (A,) int64, numbers of the objects.
        categories: (A,) int32, indices into classes, -1 for a number that is none of theirs.
        boxes: (A, 4) float64, x and y of the corner, width and height, in pixels.
        areas: (A,) float64, in pixels; of an object that tells none that of its box.
        crowds: (A,) bool: many objects in one outline.
        ignored: (A,) bool: to be left out of training.
        outlines: of all objects.
    """

    path: Path
    classes: tuple[str, ...]
    category_ids: np.ndarray
    picture_ids: np.ndarray
    names: tuple[str, ...]
    sizes: np.ndarray
    first: np.ndarray
    ids: np.ndarray
    categories: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowds: np.ndarray
    ignored: np.ndarray
    outlines: Outlines

    @property
    def pictures(self) -> np.ndarray:
        """The index of each object's picture, (A,) int64."""
        return np.repeat(np.arange(len(self.names)), np.diff(self.first))


def read_annotations(path: str | Path) -> AnnotationFile:
    """Read a file of COCO's layout.

    Raises:
        AnnotationFaults: it is none, or not consistent; each fault names the picture and the
            annotation by their ids.
        UserError: it cannot be read.
    """
    path = Path(path)
    with _no_collector():
        return _as_arrays(path, _parsed(path))


@contextmanager
def _no_collector() -> Iterator[None]:
    """Keep the garbage collector from walking through millions of numbers, again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _parsed(path: Path) -> dict[str, Any]:
    text = read_text(path, "COCO annotations")
    try:
        content = json.loads(text, object_hook=_compacted)
    except json.JSONDecodeError as error:
        what = "an empty file" if not text.strip() else f"damaged JSON ({error})"
        raise AnnotationFaults(path, [f"found {what}, expected COCO annotations"]) from None
    except RecursionError:
        fault = "found lists within lists without end, expected COCO annotations"
        raise AnnotationFaults(path, [fault]) from None
    if not isinstance(content, dict):
        kind = "a list, as of results" if isinstance(content, list) else shown(content)
        fault = f"found {kind}, expected an object with {IMAGES}, {ANNOTATIONS} and {CATEGORIES}"
        raise AnnotationFaults(path, [fault])
    return content


def _compacted(value: dict[str, Any]) -> dict[str, Any]:
    """Turn polygons into arrays as they are parsed: Python's own numbers take four times as much.

    What is no polygon stays as it is, and is told later.
    """
    outline = value.get(OUTLINE)
    if type(outline) is list:
        try:
            value[OUTLINE] = [array("d", part) for part in outline]
        except (TypeError, OverflowError):
            pass
    return value


def _as_arrays(path: Path, content: dict[str, Any]) -> AnnotationFile:
    check = AnnotationCheck(path, content)
    classes, category_ids = check.categories()
    check.stop()
    picture_ids, names, sizes = check.pictures()
    check.stop()
    rows = check.rows(ANNOTATIONS)
    pictures = check.owners(rows, dict(zip(picture_ids, sizes, strict=True)))
    check.stop()
    index_of = {number: index for index, number in enumerate(picture_ids)}
    places = np.array([index_of[number] for number in pictures], np.int64)
    order = np.argsort(places, kind="stable")
    rows = [rows[index] for index in order.tolist()]
    kinds = {number: index for index, number in enumerate(category_ids)}
    boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    return AnnotationFile(
        path,
        tuple(classes),
        np.array(category_ids, np.int64),
        np.array(picture_ids, np.int64),
        tuple(names),
        np.array(sizes, np.int32).reshape(-1, 2),
        np.searchsorted(places[order], np.arange(len(names) + 1)),
        np.array([row["id"] for row in rows], np.int64),
        np.array([kinds.get(row["category_id"], -1) for row in rows], np.int32),
        boxes,
        np.array([row.get("area", row["bbox"][2] * row["bbox"][3]) for row in rows], np.float64),
        np.array([row.get("iscrowd", 0) for row in rows], bool),
        np.array([row.get("ignore", 0) for row in rows], bool),
        Outlines.of(_outline(row.get(OUTLINE)) for row in rows),
    )


def _outline(outline: Any) -> Outline:
    return outline["counts"] if isinstance(outline, dict) else outline
