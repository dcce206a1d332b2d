"""What graphs take and give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .image_size import Size, map_size


@dataclass(frozen=True)
class End:
    """An input or output of a graph.

    Args:
        name: in the graph.
        dtype: of its numbers.
        shape: with a word for an edge that may be any.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    @property
    def told(self) -> dict[str, Any]:
        """What model.json says of it."""
        shape = [edge if isinstance(edge, int) else None for edge in self.shape]
        return {"name": self.name, "shape": shape, "dtype": self.dtype}


def detector_ends(
    channels: int, detections: int, image_size: Size | None, mask_edge: int | None = None
) -> tuple[list[End], list[End]]:
    """What a detector's graph takes and gives, of one picture; see :meth:`RetinaNet.detect`
    and :meth:`MaskRCNN.detect`.

    Args:
        channels: of the images.
        detections: that the graph has places for.
        image_size: height and width of the images, None for any.
        mask_edge: of an object's mask within its box, None of a network that gives none.
    """
    size = image_size or ("height", "width")
    places = (1, detections)
    inputs = [End("images", "float32", (1, channels, *size)), End("shapes", "int32", (1, 2))]
    outputs = [
        End("boxes", "float32", (*places, 4)),
        End("scores", "float32", places),
        End("labels", "int32", places),
        End("count", "int32", (1,)),
    ]
    if mask_edge is not None:
        outputs.append(End("masks", "float32", (*places, mask_edge, mask_edge)))
    return inputs, outputs


def image_ends(
    channels: int,
    classes: int,
    *,
    batch_size: int | None,
    image_size: Size | None,
    takes: str,
    gives: str,
    segments: bool,
) -> tuple[list[End], list[End]]:
    """What the graph of a classifier or segmenter takes and gives.

    Args:
        channels: of the images.
        classes: that it tells apart.
        batch_size: of the images, None for any.
        image_size: height and width of the images, None for any.
        takes: "float32" or "uint8", see :class:`Choices`.
        gives: "logits" or "probabilities".
        segments: it is a segmenter's.
    """
    batch, size = batch_size or "batch", image_size or ("height", "width")
    image = (*size, channels) if takes == "uint8" else (channels, *size)
    places: tuple[int | str, ...] = ()
    if segments:
        places = map_size(image_size) if image_size else ("map_height", "map_width")
    images = End("images", takes, (batch, *image))
    return [images], [End(gives, "float32", (batch, classes, *places))]
