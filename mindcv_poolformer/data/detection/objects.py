"""What is told of the objects that a detector finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..segmentation.labelling import Colour
from ..segmentation.palette import palette_of
from .drawing import draw_objects
from .mask_pasting import PastedMasks

THRESHOLD = 0.3  # of scores, for people; evaluation looks at less sure objects too


@dataclass(frozen=True)
class Objects:
    """How many objects a detector tells of, which ones, and how they are shown and numbered.

    Args:
        palette: the colour of each class, red, green and blue, 0 to 255.
        category_ids: their numbers in COCO's files, empty if unknown.
        score_threshold: scores that an object exceeds.
        iou_threshold: two objects of a class overlap by no more.
        detections: objects of a picture, at most.
        mask_edge: of each object's mask within its box, in cells; None of a network without masks.
    """

    palette: tuple[Colour, ...]
    category_ids: tuple[int, ...]
    score_threshold: float
    iou_threshold: float
    detections: int
    mask_edge: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """All but the palette, as a JSON object."""
        told = {
            "category_ids": list(self.category_ids),
            "score_threshold": self.score_threshold,
            "iou_threshold": self.iou_threshold,
            "detections": self.detections,
        }
        return told if self.mask_edge is None else {**told, "mask_edge": self.mask_edge}

    @classmethod
    def from_dict(cls, palette: tuple[Colour, ...], values: Mapping[str, Any]) -> Objects:
        """The inverse of to_dict.

        Raises:
            KeyError, TypeError, ValueError: it is not.
        """
        ids = tuple(map(int, values["category_ids"]))
        edge = values.get("mask_edge")
        if ids and len(ids) != len(palette):
            raise ValueError("category_ids: expected a number for each class, or none")
        return cls(
            palette,
            ids,
            float(values["score_threshold"]),
            float(values["iou_threshold"]),
            int(values["detections"]),
            None if edge is None else int(edge),
        )


def colours_of(classes: Sequence[str]) -> tuple[Colour, ...]:
    """Give a colour for each class of objects: PASCAL VOC's, of which the first is no class's."""
    return tuple(map(tuple, palette_of(("background", *classes))[1:].tolist()))


@dataclass(frozen=True, eq=False)
class Detection:
    """The objects on a picture, the surest first.

    Boxes, scores and labels are what Hugging Face's ``post_process_object_detection`` gives for the
    picture's own size.

    Args:
        boxes: (n, 4) float32, (x1, y1, x2, y2) in the picture's pixels.
        scores: (n,) float32, 0 to 1.
        labels: (n,) int32, indices of the classes.
        classes: the name of each class.
        palette: the colour of each class, red, green and blue, 0 to 255.
        masks: the objects' pixels, (n, H, W) bool, or each pasted as it is asked for; None of a
            network that gives none.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    masks: PastedMasks | np.ndarray | None = None

    @property
    def names(self) -> list[str]:
        """The class of each object."""
        return [self.classes[label] for label in self.labels]

    @property
    def segmentations(self) -> list[dict[str, Any]] | None:
        """The objects' pixels as COCO's run lengths, not compressed; None without masks.

        "size" is height and width, "counts" the lengths of runs of pixels that are not the
        object's, that are, that are not, ..., column by column.
        """
        return None if self.masks is None else [run_lengths(mask) for mask in self.masks]

    def overlay(self, picture: Image.Image, opacity: float = 0.5) -> Image.Image:
        """Draw the objects over the picture, upright as it was looked at, in RGB."""
        rows = zip(self.names, self.scores, strict=True)
        return draw_objects(
            picture,
            self.boxes,
            [f"{name} {score:.2f}" for name, score in rows],
            [self.palette[label] for label in self.labels],
            self.masks,
            opacity,
        )


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """Code a mask (H, W) bool as in :attr:`Detection.segmentations`."""
    # As if a pixel before the first one were not the object's: the first run may have no pixel.
    pixels = np.concatenate(([False], mask.T.ravel()))
    ends = np.append(np.flatnonzero(pixels[1:] != pixels[:-1]), mask.size)
    return {"size": list(mask.shape), "counts": np.diff(ends, prepend=0).tolist()}
