"""A detector's bundle at work: pictures one by one, the objects on each."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

from ..data.detection.objects import THRESHOLD
from ..export.detector import Detections, load_detector_bundle
from ..export.object_files import told_objects
from .options import Options
from .payload import OBJECTS, Wanted, in_base64
from .pictures import OVERLAY, ServedPictures, boxed


class ServedDetector(ServedPictures):
    """The objects on each picture, as JSON and drawn over it."""

    names, usual, pngs = (OBJECTS, OVERLAY), (OBJECTS,), (OVERLAY,)

    def __init__(self, folder: str, options: Options) -> None:
        """Raises UserError as ``load_detector_bundle``."""
        self._bundle = load_detector_bundle(
            folder, runtime=options.runtime, key_file=options.key_file
        )
        super().__init__(self._bundle, options)

    def prepare(self, picture: Image.Image) -> np.ndarray:
        """Raises UserError as ``DetectorBundle.prepare``."""
        return boxed(self._bundle.prepare(picture))

    def run(self, pictures: np.ndarray) -> np.ndarray:
        """From one ``Prepared`` to its detections."""
        return boxed(self._bundle.run(pictures[0]))

    def describe(self, picture: Image.Image, found: Detections, wanted: Wanted) -> dict[str, str]:
        """The outputs for one picture."""
        bundle = self._bundle
        threshold = THRESHOLD if wanted.threshold is None else wanted.threshold
        sure = bundle.detection(found, picture.size[::-1], threshold, wanted.top_k)
        told = told_objects(sure, bundle.objects.category_ids)
        answer = {OBJECTS: json.dumps(told, ensure_ascii=False)}
        if OVERLAY in wanted.names:
            answer[OVERLAY] = in_base64(sure.overlay(picture))
        return answer
