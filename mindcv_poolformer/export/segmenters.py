"""Segmenters on their way into a bundle: what is known of them, and scenes to prove it on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mindspore import nn
from PIL import Image

from ..data.segmentation import ade20k
from ..data.segmentation.fitting import EvalTransform
from ..data.segmentation.labelling import Labelling
from ..data.segmentation.palette import palette_of
from ..data.segmentation.stretch import StretchTransform
from ..runtime.errors import UserError
from ..weights import ModelWeights
from .class_names import with_numbers
from .image_size import Size, shown
from .trained import Trained

SMALLEST = 32  # pixels, of which the last stage leaves one


def trained_segmenter(
    network: nn.Cell, name: str, weights: ModelWeights, transform: EvalTransform
) -> Trained:
    """What there is to export of a segmenter that has its weights.

    Args:
        network: with them.
        name: of the model.
        weights: tell the classes, their colours and how scenes were prepared, as far as they do.
        transform: how scenes are prepared, if the weights do not tell.

    Raises:
        UserError: the weights tell what has no meaning.
    """
    facts = weights.metadata
    if weights.preprocessing:
        transform = EvalTransform.from_dict(weights.preprocessing)
    classes = name_classes(weights.classes, network.num_classes)
    palette = facts.get("palette") or palette_of(classes).tolist()
    reduce_zero_label = facts.get("reduce_zero_label")
    if reduce_zero_label is None:
        reduce_zero_label = classes == ade20k.names()
    labelling = Labelling(tuple(map(tuple, palette)), reduce_zero_label)
    return Trained(network, name, weights.path, transform, classes, labelling)


def name_classes(names: Sequence[str], count: int) -> tuple[str, ...]:
    """Names of the outputs: the checkpoint's, or ADE20K's where there are 150, or else numbers."""
    if not names and count == len(ade20k.names()):
        return ade20k.names()
    return with_numbers(names, count)


def check_sizes(sizes: Sequence[Size]) -> None:
    """Refuse images too small for a segmenter.

    Raises:
        UserError: an edge is.
    """
    for size in sizes:
        if min(size) < SMALLEST:
            raise UserError(
                f"export_image_size: found {shown(size)}, expected edges of {SMALLEST} or more"
            )


def scenes_at(
    trained: Trained, sizes: Sequence[Size], images: Sequence[Image.Image]
) -> list[np.ndarray]:
    """The images as graphs of each size take them, (N, 3, H, W) float32.

    Without a size that is a square of the shorter edge that scenes are resized to.
    """
    assert isinstance(trained.transform, EvalTransform)
    edge = min(trained.transform.img_scale)
    sizes = sizes or [(edge, edge)]
    transforms = [StretchTransform.of(trained.transform, size) for size in sizes]
    return [np.stack([transform(image) for image in images]) for transform in transforms]
