"""What a segmenter's bundle says of image files, as files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..data.segmentation.labelling import shares_of
from .picture_files import write_pictures
from .segmenter import SegmenterBundle

KINDS = {"labels": "", "overlay": "_overlay"}


def write_label_files(
    bundle: SegmenterBundle, paths: Sequence[Path], folder: Path
) -> Iterator[dict[str, Any]]:
    """Segment images one by one, as :func:`write_pictures`.

    ``<name>.png`` has the class of each pixel in the data set's own numbers, and
    ``<name>_overlay.png`` the image under the classes' colours.

    Yields:
        beside the files "classes", a list of "index", "class" and "share" of the pixels, the
        largest first.
    """

    def look(picture: Image.Image) -> tuple[Sequence[Image.Image], dict[str, Any]]:
        labels, labelling = bundle.label_map(picture), bundle.labelling
        images = labelling.file_image(labels), labelling.overlay(picture, labels)
        return images, {"classes": told_classes(labels, bundle.classes)}

    return write_pictures(paths, folder, KINDS, look)


def told_classes(labels: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """What is said of class indices (H, W): "index", "class" and "share" of the pixels.

    The largest comes first.
    """
    return [
        {"index": index, "class": classes[index], "share": share}
        for index, share in shares_of(labels)
    ]
