"""A segmenter's or detector's bundle at work: pictures one by one, an answer for each."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from mlserver.types import MetadataTensor, RequestInput, ResponseOutput
from PIL import Image

from ..export.detector import DetectorBundle
from ..export.image_size import Size
from ..export.segmenter import SegmenterBundle
from ..runtime.errors import UserError
from .batching import Batcher, SideBySide
from .options import Options
from .payload import BadRequestError, Pictures, Wanted, texts

OVERLAY = "overlay"
CHANNELS = 3


class ServedPictures(ABC):
    """Each picture has a run of its own, as in predict.py, and so the very same answer.

    Of a request two pictures at most are in memory: pixels and logits are a lot more than files.

    Attributes:
        names: of the outputs.
        usual: those of them where nothing is asked for.
        pngs: those of them that are images.
    """

    names: tuple[str, ...]
    usual: tuple[str, ...]
    pngs: tuple[str, ...]

    def __init__(self, bundle: SegmenterBundle | DetectorBundle, options: Options) -> None:
        self._pictures = Pictures(CHANNELS, options.max_pixels, bundle.resized_pixels)
        first = next(iter(bundle.graphs.values()))
        self.precision, self.runtime = first.precision, first.runtime
        self.inputs = self._pictures.tensors
        self.outputs = [
            MetadataTensor(name=name, datatype="BYTES", shape=[-1]) for name in self.names
        ]
        self.run_size = 1
        self.side_by_side: SideBySide | None = None
        self.shapes: Sequence[Size] = tuple(bundle.graphs)

    @abstractmethod
    def prepare(self, picture: Image.Image) -> np.ndarray:
        """Give what :meth:`run` takes, :func:`boxed`.

        Raises:
            UserError: the picture does not fit the network.
        """

    @abstractmethod
    def run(self, pictures: np.ndarray) -> np.ndarray:
        """From what :meth:`prepare` gives to what :meth:`describe` takes, boxed as well."""

    @abstractmethod
    def describe(self, picture: Image.Image, found: Any, wanted: Wanted) -> dict[str, str]:
        """The outputs for one picture."""

    def warm_up(self, shape: Size) -> None:
        """Compile the graph of a size."""
        self.run(self.prepare(Image.new("RGB", shape[::-1])))

    async def answer(
        self, tensor: RequestInput, wanted: Wanted, batcher: Batcher
    ) -> list[ResponseOutput]:
        """Answer picture by picture.

        Raises:
            BadRequestError: a picture cannot be read, or does not fit the network.
        """
        rows = []
        pictures = self._prepared(tensor)
        while (one := await asyncio.to_thread(next, pictures, None)) is not None:
            picture, inputs = one
            (found,) = await batcher.answer(inputs)
            rows.append(await asyncio.to_thread(self.describe, picture, found, wanted))
        return texts(rows, wanted.names or self.usual, self.pngs)

    def _prepared(self, tensor: RequestInput) -> Iterator[tuple[Image.Image, np.ndarray]]:
        for index, picture in enumerate(self._pictures.read(tensor)):
            try:
                inputs = self.prepare(picture)
            except UserError as error:  # which knows no number
                raise BadRequestError(f"image {index}: {error}") from None
            yield picture, inputs


def boxed(thing: Any) -> np.ndarray:
    """An array that holds one thing, whatever it is: what a Batcher hands on."""
    box = np.empty(1, object)
    box[0] = thing
    return box
