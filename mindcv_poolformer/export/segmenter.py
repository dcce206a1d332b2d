"""A bundle of a segmenter: graphs of one size or several, and the host's part around them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.fitting import nearest_shape
from ..data.segmentation.labelling import Labelling
from ..data.segmentation.stretch import StretchTransform
from .bundle import LoadedGraph, load_graphs
from .description import SEGMENTATION, read_description
from .image_size import Size
from .label_map import label_map
from .runtimes import Runtime


@dataclass(frozen=True, eq=False)
class SegmenterBundle:
    """A loaded bundle, ready to segment.

    Attributes:
        folder: where it was read from.
        model: name of the model, such as semantic_fpn_poolformer_s12.
        classes: name of each output.
        labelling: the classes' colours and their numbers in files.
        graphs: what runs, by the size of the images it takes.
    """

    folder: Path
    model: str
    classes: tuple[str, ...]
    labelling: Labelling
    graphs: Mapping[Size, LoadedGraph[StretchTransform]]

    def graph_for(self, size: Size) -> LoadedGraph[StretchTransform]:
        """Give the graph whose shape is nearest to a picture's height and width."""
        return self.graphs[nearest_shape(*size, list(self.graphs))]

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
    """Read a segmenter's bundle that export.py has written.

    Args:
        folder: the bundle.
        image_size: the only one of its sizes to load, height and width; None for all.
        runtime: as of ``load_bundle``.
        key_file: holds the key of an encrypted bundle.

    Raises:
        UserError: as ``load_bundle``, or it is no segmenter's.
    """
    description = read_description(folder)
    description.check_task(SEGMENTATION)
    assert description.labelling is not None
    sizes = description.image_sizes if image_size is None else (image_size,)
    graphs = load_graphs(description, sizes, runtime=runtime, key_file=key_file)
    return SegmenterBundle(
        description.folder, description.model, description.classes, description.labelling, graphs
    )
