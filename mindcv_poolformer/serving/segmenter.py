"""A segmenter's bundle at work: pictures one by one, the class of each pixel as a PNG."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

from ..export.image_size import Size
from ..export.label_files import told_classes
from ..export.label_map import label_map
from ..export.segmenter import load_segmenter_bundle
from .options import Options
from .payload import Wanted, in_base64
from .pictures import OVERLAY, ServedPictures, boxed

LABEL_MAP, CLASSES = "label_map", "classes"


class ServedSegmenter(ServedPictures):
    """The classes of each picture's pixels: as a map, drawn over it, and their shares."""

    names, usual, pngs = (LABEL_MAP, OVERLAY, CLASSES), (LABEL_MAP, CLASSES), (LABEL_MAP, OVERLAY)

    def __init__(self, folder: str, options: Options) -> None:
        """Raises UserError as ``load_segmenter_bundle``."""
        self._bundle = load_segmenter_bundle(
            folder, runtime=options.runtime, key_file=options.key_file
        )
        super().__init__(self._bundle, options)

    def prepare(self, picture: Image.Image) -> np.ndarray:
        """Raises UserError as ``LoadedGraph.prepare``."""
        graph = self._bundle.graph_for((picture.height, picture.width))
        return boxed((graph, graph.prepare([picture])))

    def run(self, pictures: np.ndarray) -> np.ndarray:
        """From one picture and its graph to the size of its input, and logits (classes, h, w)."""
        graph, inputs = pictures[0]
        return boxed((graph.image_size, graph.logits(inputs)[0]))

    def describe(
        self, picture: Image.Image, found: tuple[Size, np.ndarray], wanted: Wanted
    ) -> dict[str, str]:
        """The outputs for one picture."""
        image_size, logits = found
        labelling = self._bundle.labelling
        labels = label_map(logits, image_size, (picture.height, picture.width))
        names, answer = wanted.names or self.usual, {}
        if LABEL_MAP in names:
            answer[LABEL_MAP] = in_base64(labelling.file_image(labels))
        if OVERLAY in names:
            answer[OVERLAY] = in_base64(labelling.overlay(picture, labels))
        if CLASSES in names:
            classes = told_classes(labels, self._bundle.classes)[: wanted.top_k]
            answer[CLASSES] = json.dumps(classes, ensure_ascii=False)
        return answer
