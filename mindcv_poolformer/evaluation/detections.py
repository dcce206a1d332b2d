"""What is found on all pictures, on any ranks, and files of results in COCO's format."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ..data.detection.coco import CocoPictures
from ..data.detection.mask_pasting import PastedMasks
from ..runtime.collectives import all_gather_arrays
from ..runtime.files import replaced_file


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

    def __len__(self) -> int:
        return len(self._found)

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
        for arrays in all_gather_arrays(_packed(self._found), world_size):
            for number, found in _unpacked(arrays, self.masks):
                everything.setdefault(number, found)
        self._found = everything

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


def _packed(found: dict[int, _Found]) -> dict[str, np.ndarray]:
    """What a rank has found as arrays, for the others."""
    every = list(found.values())
    codes = [code for one in every for code in one.codes or []]
    return {
        "numbers": np.array(list(found), np.int64),
        "counts": np.array([len(one.labels) for one in every], np.int64),
        "boxes": np.concatenate([np.zeros((0, 4), np.float32), *(one.boxes for one in every)]),
        "scores": np.concatenate([np.zeros(0), *(one.scores for one in every)]),
        "labels": np.concatenate([np.zeros(0, np.int32), *(one.labels for one in every)]),
        "lengths": np.array([len(code) for code in codes], np.int64),
        "codes": np.frombuffer(b"".join(codes), np.uint8),
    }


def _unpacked(of: Mapping[str, np.ndarray], masks: bool) -> Iterator[tuple[int, _Found]]:
    """The inverse of :func:`_packed`: numbers of pictures, and what is found on them."""
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
