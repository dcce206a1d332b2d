"""A bundle of a detector: graphs of one size or several, and the host's part around them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..data.detection.fitting import scale_factors
from ..data.detection.mask_pasting import PastedMasks
from ..data.detection.objects import THRESHOLD, Detection, Objects
from ..data.fitting import nearest_shape
from ..data.segmentation.labelling import Colour
from .bundle import LoadedGraph, load_graphs
from .description import DETECTION, read_description
from .image_size import Size
from .runtimes import Runtime

# Boxes (n, 4), scores (n,) and labels (n,); of a network with masks the probability of each
# object's pixels within its box (n, h, w), too.
Detections = tuple[np.ndarray, ...]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A picture on its way into a graph.

    Args:
        image: (1, 3, H, W) float32, normalised, filled up with zeros.
        shape: (1, 2) int32, its height and width without the filling.
        scale: (4,) float32, how many times as wide and high it is as the picture, twice.
    """

    image: np.ndarray
    shape: np.ndarray
    scale: np.ndarray


@dataclass(frozen=True, eq=False)
class DetectorBundle:
    """A loaded bundle, ready to find objects.

    Attributes:
        folder: where it was read from.
        model: name of the model, such as retinanet_poolformer_s12.
        classes: name of each class.
        objects: the classes' colours and numbers, and what counts as an object.
        graphs: what runs, by the size of the images it takes: its ``network`` takes one of them and
            its ``shapes``, and gives the boxes, scores, labels and count of
            :meth:`RetinaNet.detect`, or these and the masks of :meth:`MaskRCNN.detect`.
    """

    folder: Path
    model: str
    classes: tuple[str, ...]
    objects: Objects
    graphs: Mapping[Size, LoadedGraph[Any]]

    def resized_pixels(self, width: int, height: int) -> int:
        """Give the pixels of a picture, resized and filled up; with masks, many for a line of them.

        A mask that is as long as its picture is pasted by as many weights for each of its cells.
        """
        canvas = math.prod(nearest_shape(height, width, list(self.graphs)))
        if self.objects.mask_edge is None:
            return canvas
        return max(canvas, max(map(max, self.graphs)) * max(width, height))

    def detections(self, picture: Image.Image | np.ndarray) -> Detections:
        """Find the objects on an RGB picture, or its (H, W, 3) uint8, the surest first.

        The picture goes to the graph whose shape is nearest to its own.

        Returns:
            boxes (n, 4) float32, (x1, y1, x2, y2) in the picture's pixels, scores (n,) and labels
            (n,) int32; all that exceed ``objects.score_threshold``, but no more than
            ``objects.detections``. Of a network with masks the probability of each object's pixels
            within its box, too, (n, 28, 28) float32.

        Raises:
            UserError: the picture is too small or too long, see ``resize_image``.
        """
        return self.run(self.prepare(picture))

    def prepare(self, picture: Image.Image | np.ndarray) -> Prepared:
        """Fit a picture, as in :meth:`detections`, into the graph that it goes to."""
        pixels = np.asarray(picture)
        height, width = pixels.shape[:2]
        graph = self.graphs[nearest_shape(height, width, list(self.graphs))]
        image, size = graph.transform(pixels)
        return Prepared(image[None], np.array([size], np.int32), scale_factors(height, width, size))

    def run(self, one: Prepared) -> Detections:
        """Find the objects on what :meth:`prepare` gives."""
        height, width = one.image.shape[2:]
        boxes, scores, labels, (count,), *masks = self.graphs[height, width].network(
            one.image, one.shape
        )
        boxes, *others = (each[0, :count] for each in (boxes, scores, labels, *masks))
        return boxes / one.scale, *others

    def objects_on(
        self,
        picture: Image.Image | np.ndarray,
        threshold: float = THRESHOLD,
        most: int | None = None,
    ) -> Detection:
        """As :meth:`detections`, of the surest objects whose scores exceed a threshold."""
        size = np.asarray(picture).shape[:2]
        return self.detection(self.detections(picture), (size[0], size[1]), threshold, most)

    def detection(
        self, found: Detections, size: Size, threshold: float, most: int | None = None
    ) -> Detection:
        """As :func:`detection`, of the bundle's classes and of no more than so many objects."""
        surest = tuple(each[:most] for each in found)
        return detection(surest, size, self.classes, self.objects.palette, threshold)


def detection(
    found: Detections,
    size: Size,
    classes: tuple[str, ...],
    palette: tuple[Colour, ...],
    threshold: float,
) -> Detection:
    """Give of what is found on a picture the objects whose scores exceed a threshold.

    Args:
        found: see ``Detections``.
        size: height and width of the picture, for the masks.
        classes: their names.
        palette: their colours.
        threshold: of the scores.
    """
    sure = found[1] > threshold
    boxes, scores, labels, *probabilities = (each[sure] for each in found)
    masks = PastedMasks(probabilities[0], boxes, size) if probabilities else None
    return Detection(boxes, scores, labels, classes, palette, masks)


def load_detector_bundle(
    folder: str | Path,
    *,
    image_size: Size | None = None,
    runtime: Runtime = "auto",
    key_file: str | Path | None = None,
) -> DetectorBundle:
    """Read a detector's bundle that export.py has written.

    Args:
        folder: the bundle.
        image_size: the only one of its sizes to load, height and width; None for all.
        runtime: as of ``load_bundle``.
        key_file: holds the key of an encrypted bundle.

    Raises:
        UserError: as ``load_bundle``, or it is no detector's.
    """
    description = read_description(folder)
    description.check_task(DETECTION)
    assert description.objects is not None
    sizes = description.image_sizes if image_size is None else (image_size,)
    graphs = load_graphs(description, sizes, runtime=runtime, key_file=key_file)
    return DetectorBundle(
        description.folder, description.model, description.classes, description.objects, graphs
    )
