"""What is told of the objects that a detector finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..segmentation.labelling import Colour
from ..segmentation.palette import palette_of


@dataclass(frozen=True)
class Objects:
    """How many objects a detector tells of, which ones, and how they are shown and numbered.

    Args:
        palette: the colour of each class, red, green and blue, 0 to 255.
        category_ids: their numbers in COCO's files, empty if unknown.
        score_threshold: scores that an object exceeds.
        iou_threshold: two objects of a class overlap by no more.
        detections: objects of a picture, at most.
    """

    palette: tuple[Colour, ...]
    category_ids: tuple[int, ...]
    score_threshold: float
    iou_threshold: float
    detections: int

    def to_dict(self) -> dict[str, Any]:
        """All but the palette, as a JSON object."""
        return {
            "category_ids": list(self.category_ids),
            "score_threshold": self.score_threshold,
            "iou_threshold": self.iou_threshold,
            "detections": self.detections,
        }

    @classmethod
    def from_dict(cls, palette: tuple[Colour, ...], values: Mapping[str, Any]) -> Objects:
        """The inverse of to_dict.

        Raises:
            KeyError, TypeError, ValueError: it is not.
        """
        ids = tuple(map(int, values["category_ids"]))
        if ids and len(ids) != len(palette):
            raise ValueError("category_ids: expected a number for each class, or none")
        return cls(
            palette,
            ids,
            float(values["score_threshold"]),
            float(values["iou_threshold"]),
            int(values["detections"]),
        )


def colours_of(classes: Sequence[str]) -> tuple[Colour, ...]:
    """Give a colour for each class of objects: PASCAL VOC's, of which the first is no class's."""
    return tuple(map(tuple, palette_of(("background", *classes))[1:].tolist()))
