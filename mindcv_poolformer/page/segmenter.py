"""What the page asks of a segmenter's bundle."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ..export.description import read_description
from ..export.label_map import label_map
from ..export.runtimes import Runtime, chosen, set_up
from ..export.segmenter import SegmenterBundle, load_segmenter_bundle
from .model import on_device


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

        def run() -> tuple[np.ndarray, float]:
            begun = time.perf_counter()
            logits = graph.logits(inputs)[0]
            return logits, time.perf_counter() - begun

        logits, seconds = on_device(run)
        answered = time.perf_counter()
        labels = label_map(logits, graph.image_size, size)
        return Segments(labels, prepared - started, seconds, time.perf_counter() - answered)


def load_page_segmenter(
    folder: str | Path,
    *,
    runtime: Runtime = "auto",
    device_target: Literal["Ascend", "CPU"] = "CPU",
    key_file: str | Path | None = None,
) -> PageSegmenter:
    """Load a segmenter's bundle, and compile it for each of its sizes.

    Raises:
        UserError: it cannot be read.
    """

    def load() -> SegmenterBundle:
        taken = chosen(read_description(folder), runtime, device_target)
        set_up(taken, device_target)
        return load_segmenter_bundle(folder, runtime=taken, key_file=key_file)

    model = PageSegmenter(on_device(load))
    for height, width in model.bundle.graphs:
        model.segment(Image.new("RGB", (width, height)))
    return model
