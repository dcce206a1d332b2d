"""What the page asks of a detector's bundle."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from ..data.detection.objects import Detection
from ..export.detector import DetectorBundle, load_detector_bundle
from .device import LoadOptions, load_on_device, timed_on_device

if TYPE_CHECKING:
    from typing_extensions import Unpack  # of typing from Python 3.11 on


@dataclass(frozen=True, eq=False)
class Found:
    """On one picture.

    Args:
        objects: all that the bundle tells of, the surest first.
        prepare_seconds: that reading pixels into the network's input took.
        run_seconds: that the network took.
    """

    objects: Detection
    prepare_seconds: float
    run_seconds: float


@dataclass(frozen=True, eq=False)
class PageDetector:
    """A detector's bundle; any thread may call it."""

    bundle: DetectorBundle

    def find(self, picture: Image.Image) -> Found:
        """Find the objects on an RGB picture.

        Raises:
            UserError: the picture is too narrow or too long.
        """
        started = time.perf_counter()
        inputs = self.bundle.prepare(picture)
        prepared = time.perf_counter()
        found, seconds = timed_on_device(lambda: self.bundle.run(inputs))
        objects = self.bundle.detection(
            found, picture.size[::-1], self.bundle.objects.score_threshold
        )
        return Found(objects, prepared - started, seconds)


def load_page_detector(folder: str | Path, **options: Unpack[LoadOptions]) -> PageDetector:
    """Load a detector's bundle, as :func:`load_on_device`; compile it for each of its sizes.

    Raises:
        UserError: it cannot be read, or not run here.
    """
    model = PageDetector(load_on_device(load_detector_bundle, folder, **options))
    for height, width in model.bundle.graphs:
        model.find(Image.new("RGB", (width, height)))
    return model
