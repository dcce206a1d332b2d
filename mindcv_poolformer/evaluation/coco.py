"""COCO's scores of what is found on all pictures, on any ranks, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..data.detection.coco import CocoPictures
from ..data.detection.outlines import POLYGONS, RUNS
from ..data.order import Shard
from ..runtime.collectives import all_gather_arrays
from ..runtime.counted import counted
from ..runtime.errors import UserError
from .coco_scores import DetectionScores, Scores
from .detections import Detections

_ALONE = Shard()


def score(found: Detections, shard: Shard = _ALONE) -> DetectionScores:
    """Give the scores of what all ranks have found; to call on every rank.

    Each rank compares a part of the classes, which takes minutes and gigabytes for COCO.

    Args:
        found: by this rank; what the others have found is put to it.
        shard: number of this rank, and of all.

    Raises:
        UserError: there is no object to be found, or one has no mask to compare with.
        ValueError: a picture has not been looked at.
    """
    found.gather(shard.size)
    pictures = found.pictures
    if missing := len(pictures) - len(found):
        raise ValueError(f"{missing} of {len(pictures)} pictures not looked at")
    file = pictures.file
    if not (_objects(pictures, pictures.category_ids) & ~file.crowds).any():
        raise UserError(
            f"{file.path}: found no object of the "
            f"{counted(len(pictures.classes), 'class')}, expected some to compare with"
        )
    boxes = _score(found, "bbox", shard)
    masks = _score(found, "segm", shard) if found.masks else None
    return DetectionScores(boxes, masks)


def _score(found: Detections, kind: str, shard: Shard) -> Scores:
    categories = found.pictures.category_ids
    order = np.argsort(categories)  # as pycocotools has them
    parts = _parts(found, kind, categories[order[shard.rank :: shard.size]])
    if shard.size > 1:
        parts = _joined(all_gather_arrays(parts, shard.size), len(order))
    with contextlib.redirect_stdout(io.StringIO()):
        whole = COCOeval(iouType=kind)
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
    return Scores(100 * values, 100 * by_class, curves)


def _parts(found: Detections, kind: str, categories: np.ndarray) -> dict[str, np.ndarray]:
    """Compare a part of the classes.

    Gives precision (T, R, k, A, M) and recall (T, k, A, M), by T overlaps, R recalls, k
    categories, A sizes of objects and M numbers of detections; -1 where there is no object.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # a page of it
        evaluation = COCOeval(iouType=kind)
        params = evaluation.params
        if not len(categories):  # there are more ranks than classes
            shape = (len(params.iouThrs), 0, len(params.areaRng), len(params.maxDets))
            of_recalls = (shape[0], len(params.recThrs), *shape[1:])
            return {"precision": np.zeros(of_recalls), "recall": np.zeros(shape)}
        params.imgIds = found.pictures.ids.tolist()
        params.catIds = categories.tolist()
        evaluation.cocoGt = _truth(found.pictures, kind, categories)
        evaluation.cocoDt = _as_coco(found, evaluation.cocoGt, kind, set(categories.tolist()))
        evaluation.evaluate()
        evaluation.accumulate()
    return {name: evaluation.eval[name] for name in ("precision", "recall")}


def _as_coco(found: Detections, truth: COCO, kind: str, categories: set[int]) -> COCO:
    """The results as pycocotools wants them; its own reader fails where nothing is found."""
    rows: list[dict[str, Any]] = []
    for row in found.results(kind):
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


def _joined(parts_of_ranks: list[dict[str, np.ndarray]], count: int) -> dict[str, np.ndarray]:
    """Put the classes together again of which each rank has every so many."""
    whole = {}
    for name, axis in (("precision", 2), ("recall", 1)):
        parts = [np.moveaxis(arrays[name], axis, 0) for arrays in parts_of_ranks]
        joined = np.empty((count, *parts[0].shape[1:]))
        for rank, part in enumerate(parts):
            joined[rank :: len(parts)] = part
        whole[name] = np.ascontiguousarray(np.moveaxis(joined, 0, axis))
    return whole
