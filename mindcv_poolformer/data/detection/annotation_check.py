"""What can be wrong with annotations of COCO's layout: all of it is told, by picture and object."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...runtime.counted import counted
from ...runtime.errors import UserError

IMAGES, ANNOTATIONS, CATEGORIES = "images", "annotations", "categories"
OUTLINE = "segmentation"
_LARGEST = 2**31 - 1  # edge of a picture, pixels
_FARTHEST = 1e9  # from the corner, pixels; leaves NaN and Infinity out, too
_FEWEST = 6  # numbers of a polygon


class AnnotationFaults(UserError):
    """What is wrong with a file of annotations; the message names the first of the faults.

    Args:
        path: of the file.
        faults: a line each, at least one.
    """

    def __init__(self, path: Path, faults: Sequence[str]) -> None:
        more = f" (and {len(faults) - 1:,} more)" if len(faults) > 1 else ""
        super().__init__(f"{path}: {faults[0]}{more}")
        self.faults = tuple(faults)


class AnnotationCheck:
    """Looks a parsed file through, list by list, and collects what is wrong with it.

    Args:
        path: of the file.
        content: as it is parsed, polygons as arrays.
    """

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path = path
        self.content = content
        self.faults: list[str] = []

    def stop(self) -> None:
        """Raise AnnotationFaults if there are any."""
        if self.faults:
            raise AnnotationFaults(self.path, self.faults)

    def rows(self, name: str) -> list[dict[str, Any]]:
        """A list of the file, without what is no object in it."""
        rows = self.content.get(name)
        if not isinstance(rows, list):
            found = shown(rows) if name in self.content else f"no {name}"
            self.faults.append(f"found {found}, expected {name} to be a list of objects")
            return []
        wrong = [index for index, row in enumerate(rows) if type(row) is not dict]
        for index in wrong:
            found = shown(rows[index])
            self.faults.append(f"{name}[{index}]: found {found}, expected an object")
        return [row for row in rows if type(row) is dict] if wrong else rows

    def categories(self) -> tuple[list[str], list[int]]:
        """Give names and ids."""
        rows = self.rows(CATEGORIES)
        for index, row in enumerate(rows):
            where = f"{CATEGORIES}[{index}]"
            self._want(row, "id", where, _is_id, "an integer")
            self._want(row, "name", where, _is_name, "text on one line")
        self._unique(rows, "id", "category", lambda row: f"category {row['id']}")
        self._unique(rows, "name", "category", lambda row: f"category {row['id']}")
        if not rows and not self.faults:
            self.faults.append(f"found no category, expected some in {CATEGORIES}")
        return [row["name"] for row in rows if "name" in row], [row.get("id", 0) for row in rows]

    def pictures(self) -> tuple[list[int], list[str], list[tuple[int, int]]]:
        """Give ids, names of files, and height and width."""
        rows = self.rows(IMAGES)
        for index, row in enumerate(rows):
            where = f"{IMAGES}[{index}]"
            if self._want(row, "id", where, _is_id, "an integer"):
                where = f"picture {row['id']}"
            self._want(row, "file_name", where, _is_text, "text")
            for edge in ("height", "width"):
                self._want(row, edge, where, _is_edge, "a number of pixels")
        self._unique(rows, "id", "picture", lambda row: f"picture {row['id']}")
        self.stop()
        if not rows:
            self.faults.append(f"found no picture, expected some in {IMAGES}")
        return (
            [row["id"] for row in rows],
            [row["file_name"] for row in rows],
            [(row["height"], row["width"]) for row in rows],
        )

    def owners(self, rows: list[dict[str, Any]], sizes: dict[int, tuple[int, int]]) -> list[int]:
        """Look through the annotations; gives the id of each one's picture.

        Args:
            rows: the annotations.
            sizes: height and width of the pictures, by their ids.
        """
        pictures = []
        for index, row in enumerate(rows):
            where = f"{ANNOTATIONS}[{index}]"
            if self._want(row, "id", where, _is_id, "an integer"):
                where = f"annotation {row['id']}"
            picture = row.get("image_id")
            if type(picture) is not int or picture not in sizes:
                found = f"image_id {shown(picture)}" if "image_id" in row else "no image_id"
                self.faults.append(f"{where}: found {found}, expected that of a picture")
                continue
            pictures.append(picture)
            where = f"picture {picture}, {where}"
            self._want(row, "category_id", where, _is_id, "an integer")
            self._want(row, "bbox", where, _is_box, "four numbers: x, y, width, height")
            if "area" in row:
                self._want(row, "area", where, _is_number, "a number of pixels")
            for flag in ("iscrowd", "ignore"):
                if flag in row:
                    self._want(row, flag, where, _is_flag, "0 or 1")
            if fault := _outline_fault(row.get(OUTLINE), *sizes[picture]):
                self.faults.append(f"{where}: {fault}")
        self._unique(rows, "id", "annotation", _where)
        return pictures

    def _want(
        self, row: dict[str, Any], key: str, where: str, fits: Callable[[Any], bool], wanted: str
    ) -> bool:
        """Tell whether a value is there and fits, and list the fault if not."""
        if fits(row.get(key)):
            return True
        found = f"{key} {shown(row[key])}" if key in row else f"no {key}"
        self.faults.append(f"{where}: found {found}, expected {wanted}")
        return False

    def _unique(
        self,
        rows: list[dict[str, Any]],
        key: str,
        what: str,
        where: Callable[[dict[str, Any]], str],
    ) -> None:
        values = [row[key] for row in rows if key in row and type(row[key]) in (int, str)]
        if len(set(values)) == len(values):
            return
        seen = set()
        for row in rows:
            value = row.get(key)
            if type(value) not in (int, str):
                continue
            if value in seen:
                self.faults.append(
                    f"{where(row)}: found the {key} {shown(value)} twice, expected one {what} "
                    "of each"
                )
            seen.add(value)


def _where(row: dict[str, Any]) -> str:
    return f"picture {shown(row.get('image_id'))}, annotation {row['id']}"


def _is_id(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def _is_text(value: Any) -> bool:
    if type(value) is not str or not value or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a pair, which JSON can spell and no file is named
        return False
    return True


def _is_name(value: Any) -> bool:
    return _is_text(value) and len(value.splitlines()) == 1


def _is_edge(value: Any) -> bool:
    return type(value) is int and 0 < value <= _LARGEST


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -_FARTHEST <= value <= _FARTHEST


def _is_box(value: Any) -> bool:
    return type(value) is list and len(value) == 4 and all(map(_is_number, value))


def _is_flag(value: Any) -> bool:
    return type(value) in (int, bool) and value in (0, 1)


def _outline_fault(outline: Any, height: int, width: int) -> str | None:
    """Tell what is wrong with an object's outline; the text of coded runs is not looked into."""
    if type(outline) is list:
        for part in outline:
            if type(part) is not array:
                return f"found {OUTLINE} {shown(outline)}, expected a list of polygons"
            if len(part) < _FEWEST or len(part) % 2:
                return (
                    f"found a polygon of {counted(len(part), 'number')}, expected an even number "
                    f"of them, {_FEWEST} or more"
                )
            if not -_FARTHEST <= min(part) <= max(part) <= _FARTHEST or sum(part) != sum(part):
                return f"found a polygon {shown(part.tolist())}, expected finite numbers"
        return None
    if outline is None:
        return None
    if type(outline) is not dict or not {"size", "counts"} <= outline.keys():
        return f"found {OUTLINE} {shown(outline)}, expected polygons, or size and counts of runs"
    if outline["size"] != [height, width]:
        return (
            f"found runs of size {shown(outline['size'])}, expected [{height}, {width}], height "
            "and width of the picture"
        )
    counts = outline["counts"]
    if type(counts) is list and all(type(run) is int and run >= 0 for run in counts):
        if sum(counts) != height * width:
            return (
                f"found runs of {counted(sum(counts), 'pixel')}, expected {height * width:,} in all"
            )
    elif type(counts) is not str or not counts or not counts.isascii():
        return f"found counts {shown(counts)}, expected whole numbers, or text that codes them"
    return None


def shown(value: Any, most: int = 60) -> str:
    """A value as JSON has it, on one line and cut short."""
    text = json.dumps(value, default=lambda part: list(part), ensure_ascii=False)
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= most else f"{text[: most - 1]}…"
