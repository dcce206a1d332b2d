"""A bundle of a segmenter: graphs of one size or several, and the host's part around them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.segmentation.labelling import Labelling
from .bundle import PictureBundle, load_sizes
from .description import SEGMENTATION
from .image_size import Size
from .label_map import label_map
from .runtimes import Runtime


@dataclass(frozen=True, eq=False)
class SegmenterBundle(PictureBundle):
    """A loaded bundle, ready to segment; see :class:`PictureBundle`.

    Attributes:
        labelling: the classes' colours and their numbers in files.
    """

    labelling: Labelling

    def resized_pixels(self, width: int, height: int) -> int:
        """Give the pixels of a picture's logits halfway to its size: many for a line of pixels."""
        return max(max(size) for size in self.graphs) * max(width, height)

    def logits(self, picture: Image.Image | np.ndarray) -> np.ndarray:
        """Give the logits (classes, h, w) float32 of an RGB picture, or its (H, W, 3) uint8.

        Raises:
            UserError: the picture is too small, see ``resize_image``.
        """
        pixels = np.asarray(picture)
        graph = self.graph_for((pixels.shape[0], pixels.shape[1]))
        return graph.logits(graph.prepare([Image.fromarray(pixels)]))[0]

    def label_map(self, picture: Image.Image | np.ndarray) -> np.ndarray:
        """Give the class of each pixel, (H, W) int32, of a picture as in :meth:`logits`."""
        pixels = np.asarray(picture)
        size = (pixels.shape[0], pixels.shape[1])
        return label_map(self.logits(pixels), self.graph_for(size).image_size, size)


def load_segmenter_bundle(
    folder: str | Path,
    *,
    image_size: Size | None = None,
    runtime: Runtime = "auto",
    key_file: str | Path | None = None,
) -> SegmenterBundle:
    """Read a segmenter's bundle that export.py has written, as :func:`load_sizes`.

    Raises:
        UserError: as ``load_bundle``, or it is no segmenter's.
    """
    description, graphs = load_sizes(folder, SEGMENTATION, image_size, runtime, key_file)
    assert description.labelling is not None
    return SegmenterBundle(
        description.folder, description.model, description.classes, graphs, description.labelling
    )
