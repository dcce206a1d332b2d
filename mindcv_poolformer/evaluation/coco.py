"""What is found on all pictures, on any ranks: COCO's scores of it by pycocotools, result files."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..data.detection.coco import CocoPictures
from ..data.detection.mask_pasting import PastedMasks
from ..data.detection.outlines import POLYGONS, RUNS
from ..data.order import Shard
from ..runtime.collectives import all_gather_bytes
from ..runtime.counted import counted
from ..runtime.errors import UserError
from ..runtime.files import replaced_file
from .coco_scores import MAX_DETECTIONS, DetectionScores, Scores

_ALONE = Shard()


@dataclass(frozen=True, eq=False)
class _Found:
    """What is found on one picture.

    Args:
        boxes: (n, 4) float32, x and y of two corners, in pixels of the picture.
        scores: (n,) float64, which holds float32 exactly.
        labels: (n,) int32.
        codes: of the masks, as pycocotools codes their runs; None where there are none.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    codes: list[bytes] | None


class Detections:
    """Collects what a network finds on each picture, for the scores and for files of results.

    Args:
        pictures: that it looks at; their classes are the network's.
        masks: it gives masks, too.
    """

    def __init__(self, pictures: CocoPictures, *, masks: bool) -> None:
        self.pictures = pictures
        self.masks = masks
        self._found: dict[int, _Found] = {}

    def add(
        self,
        number: int,
        boxes: np.ndarray,
        scores: np.ndarray,
        labels: np.ndarray,
        masks: PastedMasks | Sequence[np.ndarray] | np.ndarray | None = None,
    ) -> None:
        """Take what is found on a picture; what came of it before is replaced.

        Args:
            number: the picture's index in `pictures`.
            boxes: (n, 4), x and y of two corners, in pixels of the picture itself.
            scores: (n,), the higher, the surer.
            labels: (n,) integers, indices of the classes.
            masks: (n, H, W) of the picture's own size, not 0 on the object; only with masks.

        Raises:
            ValueError: the shapes differ, a label is of no class, or a number is not finite.
        """
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        scores, labels = np.asarray(scores, np.float64), np.asarray(labels, np.int32)
        lengths = {
            len(boxes),
            len(scores),
            len(labels),
            *([len(masks)] if masks is not None else []),
        }
        if len(lengths) > 1 or (masks is None) == self.masks:
            raise ValueError(
                f"{len(boxes)} boxes, {len(scores)} scores, {len(labels)} labels, "
                f"{'no' if masks is None else len(masks)} masks"
            )
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise ValueError("boxes or scores that are not finite")
        classes = len(self.pictures.classes)
        if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
            raise ValueError(f"labels from {labels.min()} to {labels.max()} with {classes} classes")
        codes = None
        if masks is not None:
            size = tuple(self.pictures.sizes[number].tolist())
            codes = [_coded(mask, size) for mask in masks]
        self._found[number] = _Found(boxes, scores, labels, codes)

    def found(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Give boxes (n, 4), scores (n,) and labels (n,) of a picture, as :meth:`add` took them."""
        found = self._found[number]
        return found.boxes, found.scores, found.labels

    def gather(self, world_size: int) -> None:
        """Take what the other ranks have found, too; to call on every rank.

        What several ranks have found on one picture counts once, as the first rank has it.
        """
        if world_size == 1:
            return
        everything: dict[int, _Found] = {}
        for payload in all_gather_bytes(_packed(self._found), world_size):
            for number, found in _unpacked(payload, self.masks):
                everything.setdefault(number, found)
        self._found = everything

    def scores(
        self, shard: Shard = _ALONE, max_detections: tuple[int, int, int] = MAX_DETECTIONS
    ) -> DetectionScores:
        """Give the scores of what all ranks have found; to call on every rank.

        Each rank compares a part of the classes, which takes minutes and gigabytes for COCO.

        Args:
            shard: number of this rank, and of all.
            max_detections: on a picture and of a class; the scores are of the last, the recalls of
                each. MMDetection has 100, 300 and 1000.

        Raises:
            UserError: there is no object to be found, or one has no mask to compare with.
            ValueError: a picture has not been looked at.
        """
        self.gather(shard.size)
        if missing := len(self.pictures) - len(self._found):
            raise ValueError(f"{missing} of {len(self.pictures)} pictures not looked at")
        file = self.pictures.file
        if not (_objects(self.pictures, self.pictures.category_ids) & ~file.crowds).any():
            raise UserError(
                f"{file.path}: found no object of the "
                f"{counted(len(self.pictures.classes), 'class')}, expected some to compare with"
            )
        boxes = self._scores("bbox", shard, max_detections)
        masks = self._scores("segm", shard, max_detections) if self.masks else None
        return DetectionScores(boxes, masks)

    def _scores(self, kind: str, shard: Shard, max_detections: tuple[int, int, int]) -> Scores:
        categories = self.pictures.category_ids
        order = np.argsort(categories)  # as pycocotools has them
        parts = self._parts(kind, categories[order[shard.rank :: shard.size]], max_detections)
        if shard.size > 1:
            parts = _joined(all_gather_bytes(_saved(parts), shard.size), len(order))
        with contextlib.redirect_stdout(io.StringIO()):
            whole = COCOeval(iouType=kind)
            whole.params.maxDets = list(max_detections)
            whole.eval = parts
            whole.summarize()
        whole_precision = parts["precision"][:, :, :, 0, -1]
        there = (whole_precision > -1).all(axis=(0, 1))  # as pycocotools marks what is of no object
        curves = whole_precision[:, :, there].mean(axis=2)
        by_class = np.full(len(order), np.nan)
        for place, index in enumerate(order):
            if there[place]:
                by_class[index] = whole_precision[:, :, place].mean()
        values = np.where(whole.stats < 0, np.nan, whole.stats)
        return Scores(100 * values, 100 * by_class, curves, max_detections)

    def _parts(
        self, kind: str, categories: np.ndarray, max_detections: tuple[int, int, int]
    ) -> dict[str, np.ndarray]:
        """Compare a part of the classes.

        Gives precision (T, R, k, A, M) and recall (T, k, A, M), by T overlaps, R recalls, k
        categories, A sizes of objects and M numbers of detections; -1 where there is no object.
        """
        with contextlib.redirect_stdout(io.StringIO()):  # a page of it
            evaluation = COCOeval(iouType=kind)
            params = evaluation.params
            if not len(categories):  # there are more ranks than classes
                shape = (len(params.iouThrs), 0, len(params.areaRng), len(max_detections))
                of_recalls = (shape[0], len(params.recThrs), *shape[1:])
                return {"precision": np.zeros(of_recalls), "recall": np.zeros(shape)}
            params.imgIds = self.pictures.ids.tolist()
            params.catIds = categories.tolist()
            params.maxDets = list(max_detections)
            evaluation.cocoGt = _truth(self.pictures, kind, categories)
            evaluation.cocoDt = self._as_coco(evaluation.cocoGt, kind, set(categories.tolist()))
            evaluation.evaluate()
            evaluation.accumulate()
        return {name: evaluation.eval[name] for name in ("precision", "recall")}

    def _as_coco(self, truth: COCO, kind: str, categories: set[int]) -> COCO:
        """The results as pycocotools wants them; its own reader fails where nothing is found."""
        rows: list[dict[str, Any]] = []
        for row in self.results(kind):
            if row["category_id"] not in categories:
                continue
            if kind == "bbox":
                area = row["bbox"][2] * row["bbox"][3]
            else:
                area = float(coco_mask.area(row["segmentation"]))
            rows.append({**row, "area": area, "id": len(rows) + 1, "iscrowd": 0})
        results = COCO()
        results.dataset = {**truth.dataset, "annotations": rows}
        results.createIndex()
        return results

    def results(self, kind: str) -> Iterator[dict[str, Any]]:
        """Give the rows of a file of results in COCO's format.

        Those of masks are without boxes, by which pycocotools would tell small objects from large.

        Args:
            kind: "bbox", or with masks "segm".
        """
        for number in sorted(self._found):
            found = self._found[number]
            size = self.pictures.sizes[number].tolist()
            corners, scores = found.boxes.tolist(), found.scores.tolist()
            categories = self.pictures.category_ids[found.labels].tolist()
            for place, category in enumerate(categories):
                row: dict[str, Any] = {
                    "image_id": int(self.pictures.ids[number]),
                    "category_id": category,
                }
                if kind == "bbox":
                    x, y, right, bottom = corners[place]
                    row["bbox"] = [x, y, right - x, bottom - y]
                elif found.codes is not None:
                    row["segmentation"] = {"size": size, "counts": found.codes[place].decode()}
                yield {**row, "score": scores[place]}

    def write(self, folder: Path) -> list[Path]:
        """Write results.bbox.json and, with masks, results.segm.json; gives their paths.

        Raises:
            UserError: the file system does not take them.
        """
        paths = []
        for kind in ("bbox", "segm") if self.masks else ("bbox",):
            paths.append(folder / f"results.{kind}.json")
            with replaced_file(paths[-1]) as path:
                path.write_text(json.dumps(list(self.results(kind))))
        return paths


def _coded(mask: np.ndarray, size: tuple[int, int]) -> bytes:
    if mask.shape != size:
        raise ValueError(f"a mask of {mask.shape} on a picture of {size}")
    return coco_mask.encode(np.asfortranarray(mask != 0).astype(np.uint8, order="F"))["counts"]


def _objects(pictures: CocoPictures, categories: np.ndarray) -> np.ndarray:
    """Tell which of the file's objects are of some categories and on the pictures, (A,) bool."""
    file = pictures.file
    of_category = np.append(np.isin(file.category_ids, categories), False)
    return of_category[file.categories] & np.isin(file.pictures, pictures.chosen)


def _truth(pictures: CocoPictures, kind: str, categories: np.ndarray) -> COCO:
    """The objects of some categories as pycocotools wants them, those that training leaves out too.

    They are numbered from 1: 0 means no match there.
    """
    file = pictures.file
    numbers = np.flatnonzero(_objects(pictures, categories))
    owners = file.pictures
    rows: list[dict[str, Any]] = []
    for number in numbers.tolist():
        height, width = file.sizes[owners[number]].tolist()
        row = {
            "id": len(rows) + 1,
            "image_id": int(file.picture_ids[owners[number]]),
            "category_id": int(file.category_ids[file.categories[number]]),
            "bbox": file.boxes[number].tolist(),
            "area": float(file.areas[number]),
            "iscrowd": int(file.crowds[number]),
        }
        if kind == "segm":
            row["segmentation"] = _outline(pictures, number, height, width)
        rows.append(row)
    coco = COCO()
    coco.dataset = {
        "images": [
            {"id": int(number), "height": int(height), "width": int(width)}
            for number, (height, width) in zip(pictures.ids, pictures.sizes, strict=True)
        ],
        "categories": [{"id": number} for number in categories.tolist()],
        "annotations": rows,
    }
    coco.createIndex()
    return coco


def _outline(pictures: CocoPictures, number: int, height: int, width: int) -> Any:
    outlines = pictures.file.outlines
    kind, parts = outlines.kinds[number], outlines.parts(number)
    if kind == POLYGONS:
        return [part.tolist() for part in parts]
    try:
        outlines.mask(number, height, width)  # pycocotools takes too few runs as they are
    except ValueError as error:
        raise UserError(
            f"{pictures.file.path}: picture "
            f"{pictures.file.picture_ids[pictures.file.pictures[number]]}, annotation "
            f"{pictures.file.ids[number]}: {error}"
        ) from None
    counts = parts[0].tolist() if kind == RUNS else parts[0].tobytes()
    return {"size": [height, width], "counts": counts}


def _saved(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _loaded(payload: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(payload)) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _joined(payloads: list[bytes], count: int) -> dict[str, np.ndarray]:
    """Put the classes together again of which each rank has every so many."""
    loaded = [_loaded(payload) for payload in payloads]
    whole = {}
    for name, axis in (("precision", 2), ("recall", 1)):
        parts = [np.moveaxis(arrays[name], axis, 0) for arrays in loaded]
        joined = np.empty((count, *parts[0].shape[1:]))
        for rank, part in enumerate(parts):
            joined[rank :: len(parts)] = part
        whole[name] = np.ascontiguousarray(np.moveaxis(joined, 0, axis))
    return whole


def _packed(found: dict[int, _Found]) -> bytes:
    """What a rank has found as bytes, for the others."""
    every = list(found.values())
    codes = [code for one in every for code in one.codes or []]
    return _saved(
        {
            "numbers": np.array(list(found), np.int64),
            "counts": np.array([len(one.labels) for one in every], np.int64),
            "boxes": np.concatenate([np.zeros((0, 4), np.float32), *(one.boxes for one in every)]),
            "scores": np.concatenate([np.zeros(0), *(one.scores for one in every)]),
            "labels": np.concatenate([np.zeros(0, np.int32), *(one.labels for one in every)]),
            "lengths": np.array([len(code) for code in codes], np.int64),
            "codes": np.frombuffer(b"".join(codes), np.uint8),
        }
    )


def _unpacked(payload: bytes, masks: bool) -> Iterator[tuple[int, _Found]]:
    """The inverse of :func:`_packed`: numbers of pictures, and what is found on them."""
    of = _loaded(payload)
    text = of["codes"].tobytes()
    edges = np.concatenate([[0], np.cumsum(of["lengths"])]).tolist()
    codes = [text[start:end] for start, end in zip(edges, edges[1:], strict=False)]
    start = 0
    for number, count in zip(of["numbers"].tolist(), of["counts"].tolist(), strict=True):
        end = start + count
        yield (
            number,
            _Found(
                of["boxes"][start:end],
                of["scores"][start:end],
                of["labels"][start:end],
                codes[start:end] if masks else None,
            ),
        )
        start = end
