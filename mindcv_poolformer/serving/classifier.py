"""A classifier's bundle at work: images in batches, classes with their probabilities."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from mlserver.types import MetadataTensor, RequestInput, ResponseOutput

from ..data.pixels import resized_pixels
from ..export.bundle import Bundle, load_bundle, softmax
from ..runtime.cores import threads
from ..runtime.errors import UserError
from .batching import Batcher, SideBySide, quickest, sizes_up_to
from .options import Options
from .payload import BadRequestError, Pictures, Wanted, read_numbers

IMAGES = "images"
LOGITS, PROBABILITIES, LABELS, SCORES = "logits", "probabilities", "labels", "scores"
TOP_K = 5


class ServedClassifier:
    """Requests of all clients run together, in the batch sizes that take the least time."""

    def __init__(self, folder: str, options: Options) -> None:
        """Raises UserError as ``load_bundle``."""
        self._bundle = bundle = load_bundle(
            folder, runtime=options.runtime, key_file=options.key_file
        )
        self._pictures = Pictures(
            bundle.channels,
            options.max_pixels,
            lambda width, height: resized_pixels(width, height, bundle.transform),
        )
        self.precision, self.runtime = bundle.precision, bundle.runtime
        self._names = np.array(bundle.classes, dtype=object)
        self.inputs = [*_normalised(bundle), *self._pictures.tensors]
        self.outputs = _outputs(bundle)
        # ONNX Runtime compiles nothing: it runs as many as there are, with none to fill up.
        fixed = bundle.batch_sizes or options.batch_sizes
        self._fits = bundle.runtime == "onnx" and not fixed
        self.run_size, cores = options.max_batch_size, threads()
        self.shapes: Sequence[int] = fixed or tuple(sizes_up_to(self.run_size))
        self.side_by_side: SideBySide | None = None
        if self._fits:
            self.shapes = (self.run_size,)
            if cores > 1:
                self.shapes = (1,)  # more seldom run together, and would hold memory
                size = max(1, self.run_size // cores)
                one = load_bundle(
                    folder, runtime=options.runtime, key_file=options.key_file, threads=1
                )
                if one.checksums != bundle.checksums:
                    raise UserError(f"{folder}: found another graph than at the start of its load")
                self.side_by_side = SideBySide(one.outputs, size, cores)
        self._seconds: dict[int, float] = {}
        self._most = max(self.run_size, options.max_images)

    def warm_up(self, shape: int) -> None:
        """Compile for a batch size, and time it."""
        bundle = self._bundle
        edge, channels = bundle.transform.image_size, bundle.channels
        images = bundle.to_input(np.zeros((shape, channels, edge, edge), np.float32))
        bundle.outputs(images, shape)
        if self.side_by_side:
            self.side_by_side.run(images)
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            bundle.outputs(images, shape)
            seconds.append(time.perf_counter() - started)
        self._seconds[shape] = min(seconds)

    @cached_property
    def _plans(self) -> list[tuple[int, ...]]:
        return quickest(self._seconds, self._most)

    def _plan(self, count: int) -> Sequence[int]:
        """Sizes of the runs that take so many images."""
        if not self._fits:
            return self._plans[count]
        return [min(self.run_size, count - start) for start in range(0, count, self.run_size)]

    def run(self, images: np.ndarray) -> np.ndarray:
        """From what the network takes to (N, classes) float32."""
        rows, start = [], 0
        for size in self._plan(len(images)):
            rows.append(self._bundle.outputs(images[start : start + size], size))
            start += size
        return np.concatenate(rows)

    async def answer(
        self, tensor: RequestInput, wanted: Wanted, batcher: Batcher
    ) -> list[ResponseOutput]:
        """Labels and scores where nothing but ``top_k`` is asked for, else probabilities.

        Raises:
            BadRequestError: the data is not what it should be.
        """
        images = await asyncio.to_thread(self._read, tensor)
        return self._write(wanted, await batcher.answer(images))

    def _read(self, tensor: RequestInput) -> np.ndarray:
        """What the network takes."""
        if tensor.name != IMAGES:
            return self._bundle.prepare(self._pictures.read(tensor))
        values = read_numbers(tensor)
        if not np.isfinite(values).all():
            raise BadRequestError(f"input {IMAGES}: found Inf or NaN, expected numbers")
        return values

    def _write(self, wanted: Wanted, found: np.ndarray) -> list[ResponseOutput]:
        if not np.isfinite(found).all():  # finite images of absurd size can do that
            raise BadRequestError(
                "logits: found Inf or NaN, expected images normalised as documented"
            )
        bundle = self._bundle
        probabilities = softmax(found) if bundle.gives == "logits" else found
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, : wanted.top_k or TOP_K]
        tensors = {
            LOGITS: found,
            PROBABILITIES: probabilities,
            LABELS: self._names[best],
            SCORES: np.take_along_axis(probabilities, best, axis=1),
        }
        usual = (PROBABILITIES,) if wanted.top_k is None else (LABELS, SCORES)
        return [
            ResponseOutput(
                name=name,
                datatype="BYTES" if name == LABELS else "FP32",
                shape=list(tensors[name].shape),
                data=tensors[name].ravel().tolist(),
            )
            for name in wanted.names or usual
        ]


def _normalised(bundle: Bundle) -> list[MetadataTensor]:
    """The input of a graph that does not normalise."""
    edge = bundle.transform.image_size
    shape = [-1, bundle.channels, edge, edge]
    tensor = MetadataTensor(name=IMAGES, datatype="FP32", shape=shape)
    return [tensor] if bundle.takes == "float32" else []


def _outputs(bundle: Bundle) -> list[MetadataTensor]:
    shape = [-1, len(bundle.classes)]
    tensors = [
        MetadataTensor(name=PROBABILITIES, datatype="FP32", shape=shape),
        MetadataTensor(name=LABELS, datatype="BYTES", shape=[-1, -1]),
        MetadataTensor(name=SCORES, datatype="FP32", shape=[-1, -1]),
    ]
    if bundle.gives == "logits":
        tensors.insert(0, MetadataTensor(name=LOGITS, datatype="FP32", shape=shape))
    return tensors
