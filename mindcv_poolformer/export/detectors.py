"""Detectors on their way into a bundle: what is known of them, and pictures to prove it on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..data.detection import coco_categories
from ..data.detection.fitting import CanvasTransform, EvalTransform, padded_size
from ..data.detection.objects import Objects, colours_of
from ..data.fitting import DIVISOR
from ..models import MaskRCNN, RetinaNet
from ..models.dense.mask_rcnn_heads import MASK_EDGE
from ..runtime.errors import UserError
from ..weights import ModelWeights
from .class_names import with_numbers
from .image_size import Size, shown
from .proof import Samples
from .trained import Trained


def trained_detector(
    network: RetinaNet | MaskRCNN, name: str, weights: ModelWeights, transform: EvalTransform
) -> Trained:
    """What there is to export of a detector that has its weights.

    Args:
        network: with them.
        name: of the model.
        weights: tell the classes, their numbers and how pictures were prepared, as far as they do.
        transform: how pictures are prepared, if the weights do not tell.

    Raises:
        UserError: the weights tell what has no meaning.
    """
    if weights.preprocessing:
        transform = EvalTransform.from_dict(weights.preprocessing)
    classes = with_numbers(weights.classes, network.num_classes)
    numbers = weights.category_ids
    if not numbers and classes == coco_categories.names():
        numbers = coco_categories.numbers()
    masks = isinstance(network, MaskRCNN)
    selection = network if masks else network.selection
    objects = Objects(
        colours_of(classes),
        numbers,
        selection.score_threshold,
        selection.iou_threshold,
        selection.detections,
        MASK_EDGE if masks else None,
    )
    return Trained(network, name, weights.path, transform, classes, objects=objects)


def graph_sizes(given: Sequence[Size], transform: EvalTransform) -> list[Size]:
    """Give the sizes of a detector's graphs: those asked for, or what ``img_scale`` fits in.

    That is as high as its shorter edge and as wide as its longer one, or the other way round, both
    made multiples of 32.

    Raises:
        UserError: an edge is no multiple of 32.
    """
    for size in given:
        if any(edge % DIVISOR for edge in size):
            raise UserError(
                f"export_image_size: found {shown(size)}, expected multiples of {DIVISOR}: the "
                "network halves its maps so often"
            )
    low, high = padded_size((min(transform.img_scale), max(transform.img_scale)))
    return list(given) or list(dict.fromkeys([(low, high), (high, low)]))


def pictures_at(
    transform: EvalTransform, sizes: Sequence[Size], pictures: Sequence[Image.Image]
) -> list[Samples]:
    """The pictures as graphs of each size take them: (N, 3, H, W) float32, and shapes (N, 2)."""
    samples: list[Samples] = []
    for size in sizes:
        fitted = CanvasTransform.of(transform, size)
        images, shapes = zip(*(fitted(np.asarray(one)) for one in pictures), strict=True)
        samples.append((np.stack(images), np.array(shapes, np.int32)))
    return samples
