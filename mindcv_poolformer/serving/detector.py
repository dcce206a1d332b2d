"""A detector's bundle at work: pictures one by one, the objects on each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from mlserver.types import MetadataTensor, RequestInput, ResponseOutput
from PIL import Image

from ..data.detection.objects import THRESHOLD
from ..export.detector import Detections, Prepared, load_detector_bundle
from ..export.image_size import Size
from ..export.object_files import told_objects
from ..runtime.errors import UserError
from .batching import Batcher
from .options import Options
from .payload import OBJECTS, BadRequestError, Pictures, Wanted, in_base64, texts

OVERLAY = "overlay"
CHANNELS = 3


class ServedDetector:
    """Each picture has a run of its own, as in predict.py, and so the very same objects.

    Of a request two pictures at most are in memory.
    """

    def __init__(self, folder: str, options: Options) -> None:
        """Raises UserError as ``load_detector_bundle``."""
        self._bundle = bundle = load_detector_bundle(
            folder, runtime=options.runtime, key_file=options.key_file
        )
        self._pictures = Pictures(CHANNELS, options.max_pixels, bundle.resized_pixels)
        first = next(iter(bundle.graphs.values()))
        self.precision, self.runtime = first.precision, first.runtime
        self.inputs = self._pictures.tensors
        self.outputs = [
            MetadataTensor(name=name, datatype="BYTES", shape=[-1]) for name in (OBJECTS, OVERLAY)
        ]
        self.run_size = 1
        self.shapes: Sequence[Size] = tuple(bundle.graphs)

    def warm_up(self, shape: Size) -> None:
        """Compile the graph of a size."""
        self._bundle.run(self._bundle.prepare(Image.new("RGB", shape[::-1])))

    def run(self, pictures: np.ndarray) -> np.ndarray:
        """From one :class:`Prepared`, in an array of objects, to its detections, likewise."""
        return _boxed(self._bundle.run(pictures[0]))

    async def answer(
        self, tensor: RequestInput, wanted: Wanted, batcher: Batcher
    ) -> list[ResponseOutput]:
        """Objects where nothing is asked for.

        Raises:
            BadRequestError: a picture cannot be read, or is too narrow or too long.
        """
        rows = []
        pictures = self._prepared(tensor)
        while (one := await asyncio.to_thread(next, pictures, None)) is not None:
            picture, prepared = one
            (found,) = await batcher.answer(_boxed(prepared))
            rows.append(await asyncio.to_thread(self._describe, picture, found, wanted))
        return texts(rows, wanted.names or (OBJECTS,), pngs=(OVERLAY,))

    def _prepared(self, tensor: RequestInput) -> Iterator[tuple[Image.Image, Prepared]]:
        for index, picture in enumerate(self._pictures.read(tensor)):
            try:
                yield picture, self._bundle.prepare(picture)
            except UserError as error:  # which knows no number
                raise BadRequestError(f"image {index}: {error}") from None

    def _describe(self, picture: Image.Image, found: Detections, wanted: Wanted) -> dict[str, str]:
        """The outputs for one picture."""
        bundle = self._bundle
        threshold = THRESHOLD if wanted.threshold is None else wanted.threshold
        sure = bundle.detection(found, picture.size[::-1], threshold, wanted.top_k)
        told = told_objects(sure, bundle.objects.category_ids)
        answer = {OBJECTS: json.dumps(told, ensure_ascii=False)}
        if OVERLAY in wanted.names:
            answer[OVERLAY] = in_base64(sure.overlay(picture))
        return answer


def _boxed(thing: Any) -> np.ndarray:
    """An array that holds one thing, whatever it is: what a Batcher hands on."""
    boxed = np.empty(1, object)
    boxed[0] = thing
    return boxed
