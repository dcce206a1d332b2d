"""A segmenter's bundle at work: pictures one by one, the class of each pixel as a PNG."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from mlserver.types import MetadataTensor, RequestInput, ResponseOutput
from PIL import Image

from ..data.segmentation.stretch import StretchTransform
from ..export.bundle import LoadedGraph
from ..export.image_size import Size
from ..export.label_files import told_classes
from ..export.label_map import label_map
from ..export.segmenter import load_segmenter_bundle
from ..runtime.errors import UserError
from .batching import Batcher
from .options import Options
from .payload import BadRequestError, Pictures, Wanted, in_base64, texts

LABEL_MAP, OVERLAY, CLASSES = "label_map", "overlay", "classes"
USUAL = (LABEL_MAP, CLASSES)
CHANNELS = 3


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A picture on its way into a graph."""

    picture: Image.Image
    graph: LoadedGraph[StretchTransform]
    inputs: np.ndarray


class ServedSegmenter:
    """Each picture has a run of its own, as in predict.py, and so the very same classes.

    Of a request one picture at a time is in memory: its logits may be 10 MB, and its decoded pixels
    a lot more.
    """

    def __init__(self, folder: str, options: Options) -> None:
        """Raises UserError as ``load_segmenter_bundle``."""
        self._bundle = bundle = load_segmenter_bundle(
            folder, runtime=options.runtime, key_file=options.key_file
        )
        self._pictures = Pictures(CHANNELS, options.max_pixels, bundle.resized_pixels)
        first = next(iter(bundle.graphs.values()))
        self.precision, self.runtime = first.precision, first.runtime
        self.inputs = self._pictures.tensors
        self.outputs = [
            MetadataTensor(name=name, datatype="BYTES", shape=[-1])
            for name in (LABEL_MAP, OVERLAY, CLASSES)
        ]
        self.run_size = 1
        self.shapes: Sequence[Size] = tuple(bundle.graphs)
        self._by_input = {_input(graph).shape: graph for graph in bundle.graphs.values()}

    def warm_up(self, shape: Size) -> None:
        """Compile the graph of a size."""
        self.run(_input(self._bundle.graphs[shape]))

    def run(self, images: np.ndarray) -> np.ndarray:
        """From one picture, as the graph of its size takes it, to (1, classes, h, w) float32."""
        return self._by_input[images.shape].logits(images)

    async def answer(
        self, tensor: RequestInput, wanted: Wanted, batcher: Batcher
    ) -> list[ResponseOutput]:
        """Label maps and classes where nothing is asked for.

        Raises:
            BadRequestError: a picture cannot be read, or is too small.
        """
        rows = []
        pictures = self._prepared(tensor)
        while (one := await asyncio.to_thread(next, pictures, None)) is not None:
            (logits,) = await batcher.answer(one.inputs)
            rows.append(await asyncio.to_thread(self._describe, one, logits, wanted))
        return texts(rows, wanted.names or USUAL, pngs=(LABEL_MAP, OVERLAY))

    def _prepared(self, tensor: RequestInput) -> Iterator[_Prepared]:
        for index, picture in enumerate(self._pictures.read(tensor)):
            graph = self._bundle.graph_for((picture.height, picture.width))
            try:
                inputs = graph.prepare([picture])
            except UserError as error:  # which knows no number
                raise BadRequestError(f"image {index}: {error}") from None
            yield _Prepared(picture, graph, inputs)

    def _describe(self, one: _Prepared, logits: np.ndarray, wanted: Wanted) -> dict[str, str]:
        """The outputs for one picture."""
        picture, labelling = one.picture, self._bundle.labelling
        labels = label_map(logits, one.graph.image_size, (picture.height, picture.width))
        names, found = wanted.names or USUAL, {}
        if LABEL_MAP in names:
            found[LABEL_MAP] = in_base64(labelling.file_image(labels))
        if OVERLAY in names:
            found[OVERLAY] = in_base64(labelling.overlay(picture, labels))
        if CLASSES in names:
            classes = told_classes(labels, self._bundle.classes)[: wanted.top_k]
            found[CLASSES] = json.dumps(classes, ensure_ascii=False)
        return found


def _input(graph: LoadedGraph[StretchTransform]) -> np.ndarray:
    """A black picture, as the graph takes it."""
    return graph.prepare([Image.new("RGB", graph.image_size[::-1])])
