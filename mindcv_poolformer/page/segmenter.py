"""What the page asks of a segmenter's bundle."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..export.label_map import label_map
from ..export.segmenter import SegmenterBundle, load_segmenter_bundle
from .device import LoadOptions, load_on_device, timed_on_device

if TYPE_CHECKING:
    from typing_extensions import Unpack  # of typing from Python 3.11 on


@dataclass(frozen=True, eq=False)
class Segments:
    """Of one picture.

    Args:
        labels: (H, W) int32, indices of the classes.
        prepare_seconds: that reading pixels into the network's input took.
        run_seconds: that the network took.
        resize_seconds: that its logits took to the picture's size.
    """

    labels: np.ndarray
    prepare_seconds: float
    run_seconds: float
    resize_seconds: float


@dataclass(frozen=True, eq=False)
class PageSegmenter:
    """A segmenter's bundle; any thread may call it."""

    bundle: SegmenterBundle

    def segment(self, picture: Image.Image) -> Segments:
        """Give the class of each pixel of an RGB picture.

        Raises:
            UserError: the picture is too small.
        """
        started = time.perf_counter()
        size = (picture.height, picture.width)
        graph = self.bundle.graph_for(size)
        inputs = graph.prepare([picture])
        prepared = time.perf_counter()
        (logits,), seconds = timed_on_device(lambda: graph.logits(inputs))
        answered = time.perf_counter()
        labels = label_map(logits, graph.image_size, size)
        return Segments(labels, prepared - started, seconds, time.perf_counter() - answered)


def load_page_segmenter(folder: str | Path, **options: Unpack[LoadOptions]) -> PageSegmenter:
    """Load a segmenter's bundle, as :func:`load_on_device`; compile it for each of its sizes.

    Raises:
        UserError: it cannot be read, or not run here.
    """
    model = PageSegmenter(load_on_device(load_segmenter_bundle, folder, **options))
    for height, width in model.bundle.graphs:
        model.segment(Image.new("RGB", (width, height)))
    return model
