"""A bundle of a detector: graphs of one size or several, and the host's part around them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.detection.fitting import scale_factors
from ..data.detection.mask_pasting import PastedMasks
from ..data.detection.objects import THRESHOLD, Detection, Objects
from ..data.segmentation.labelling import Colour
from .bundle import PictureBundle, load_sizes
from .description import DETECTION
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
class DetectorBundle(PictureBundle):
    """A loaded bundle, ready to find objects; see :class:`PictureBundle`.

    The ``network`` of a graph takes an image and its ``shapes``, and gives boxes, scores, labels
    and count of :meth:`RetinaNet.detect`, or these and the masks of :meth:`MaskRCNN.detect`.

    Attributes:
        objects: the classes' colours and numbers, and what counts as an object.
    """

    objects: Objects

    def resized_pixels(self, width: int, height: int) -> int:
        """Give the pixels of a picture, resized and filled up; with masks, many for a line of them.

        A mask that is as long as its picture is pasted by as many weights for each of its cells.
        """
        canvas = math.prod(self.graph_for((height, width)).image_size)
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
        graph = self.graph_for((height, width))
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
    """Read a detector's bundle that export.py has written, as :func:`load_sizes`.

    Raises:
        UserError: as ``load_bundle``, or it is no detector's.
    """
    description, graphs = load_sizes(folder, DETECTION, image_size, runtime, key_file)
    assert description.objects is not None
    return DetectorBundle(
        description.folder, description.model, description.classes, graphs, description.objects
    )
