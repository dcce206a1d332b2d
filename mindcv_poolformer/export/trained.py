"""What is to be exported: a network with its weights, and what a bundle tells of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mindspore import nn

from ..data.detection.objects import Objects
from ..data.segmentation.labelling import Labelling
from .description import CLASSIFICATION, AnyTransform, task_of
from .image_size import Size


@dataclass(frozen=True, eq=False)
class Trained:
    """What is to be exported.

    Args:
        network: normalised images (N, C, H, W) to logits, a detector's to its maps, in fp32.
        model: name of the model.
        checkpoint: the file that the weights came from.
        transform: from an image to the network's input.
        classes: name of each output.
        labelling: of a segmenter, else None.
        objects: of a detector, else None.
    """

    network: nn.Cell
    model: str
    checkpoint: Path
    transform: AnyTransform
    classes: tuple[str, ...]
    labelling: Labelling | None = None
    objects: Objects | None = None

    @property
    def task(self) -> str:
        """Classification, segmentation or detection."""
        return task_of(self.labelling, self.objects)

    def told_size(self, size: Size) -> int | list[int]:
        """What model.json has for an image size: an edge of a classifier's, which are squares."""
        return size[0] if self.task == CLASSIFICATION else list(size)
