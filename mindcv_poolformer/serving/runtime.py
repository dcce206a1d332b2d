"""What `mlserver start BUNDLE` runs: MLServer's interface to a bundle."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import grpc
import mindspore as ms
import numpy as np
from mlserver import MLModel, ModelSettings
from mlserver.errors import MLServerError
from mlserver.grpc.utils import STATUS_CODE_MAPPING
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import get_model_uri

from ..data.preprocess import silence_pillow
from ..export.bundle import Bundle, load_bundle
from ..runtime.device import DEVICE, set_up_device
from ..runtime.errors import UserError
from ..runtime.launch import World
from .batching import Batcher, BusyError, quickest, sizes_up_to
from .payload import (
    Limits,
    check_id,
    count_images,
    input_metadata,
    output_metadata,
    read_images,
    read_wanted,
    write_outputs,
)

# MLServer tells gRPC's clients of 400, 404, 422 and 500; the rest is UNKNOWN to them.
STATUS_CODE_MAPPING[413] = grpc.StatusCode.INVALID_ARGUMENT
STATUS_CODE_MAPPING[429] = grpc.StatusCode.RESOURCE_EXHAUSTED
STATUS_CODE_MAPPING[503] = grpc.StatusCode.UNAVAILABLE


@dataclass(frozen=True)
class Options:
    """`parameters.extra` of model-settings.json.

    Args:
        max_batch_size: images in one run of the network.
        max_batch_time: seconds that a request waits for company at most; 0 for no waiting.
        batch_sizes: that the network is compiled for before the model is ready; others are put
            together of these. Empty for 1, 2, 4, ... max_batch_size, or the bundle's own.
        max_images: in one request.
        max_pixels: of an image.
        max_queue: images under way at once; a request that would exceed it is answered with 429.
        device_target: CPU or Ascend.
        key_file: holds the key of an encrypted bundle.
    """

    max_batch_size: int = 1
    max_batch_time: float = 0.0
    batch_sizes: tuple[int, ...] = field(default=())
    max_images: int = Limits.images
    max_pixels: int = Limits.pixels
    max_queue: int = Limits.queue
    device_target: Literal["CPU", "Ascend"] = "CPU"
    key_file: str | None = None

    def __post_init__(self) -> None:
        for name in ("max_batch_size", "max_images", "max_pixels", "max_queue"):
            _check(name, getattr(self, name), 1)
        for size in self.batch_sizes:
            _check("batch_sizes", size, 1)
        if not isinstance(self.max_batch_time, (int, float)) or not self.max_batch_time >= 0:
            raise UserError(f"max_batch_time: found {self.max_batch_time!r}, expected seconds >= 0")
        if self.device_target not in ("CPU", "Ascend"):
            raise UserError(f"device_target: found {self.device_target!r}, expected CPU or Ascend")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Options:
        """Raises UserError for an unknown key or a value without meaning."""
        known = [one.name for one in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise UserError(
                    f"parameters.extra: found {name!r}, expected one of {', '.join(known)}"
                )
        sizes = values.get("batch_sizes", ())
        if not isinstance(sizes, (list, tuple)):
            raise UserError(f"batch_sizes: found {sizes!r}, expected a list of counts")
        return cls(**{**values, "batch_sizes": tuple(sizes)})


class PoolFormerRuntime(MLModel):
    """Classifies images by the bundle in `parameters.uri`."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        # MLServer's own batching merges requests before anything has looked at them: one that is
        # malformed spoils the answers of the others, and one whose client leaves has them wait
        # for ever. So this runtime batches, by the same two settings; kept where worker
        # processes get them too.
        extra = settings.parameters.extra = dict(settings.parameters.extra or {})
        if settings.max_batch_size:
            extra.setdefault("max_batch_size", settings.max_batch_size)
            extra.setdefault("max_batch_time", settings.max_batch_time)
            settings.max_batch_size, settings.max_batch_time = 0, 0.0
        self._bundle: Bundle | None = None

    async def load(self) -> bool:
        """Read the bundle and compile it for each batch size.

        Raises:
            MLServerError: 422, with what is wrong with settings or bundle.
        """
        loop = asyncio.get_running_loop()
        folder = await get_model_uri(self.settings)
        try:
            options = Options.from_dict(self.settings.parameters.extra)
            bundle = await loop.run_in_executor(DEVICE, _read, folder, options)
            seconds = {}
            for size in bundle.batch_sizes or options.batch_sizes or _sizes(options):
                # One job for each, so that a model that is serving has its turn in between.
                seconds[size] = await loop.run_in_executor(DEVICE, _warm_up, bundle, size)
        except UserError as error:
            raise MLServerError(str(error), 422) from None
        silence_pillow()
        self._limits = Limits(options.max_images, options.max_pixels, options.max_queue)
        size = options.max_batch_size
        self._plans = quickest(seconds, max(size, options.max_images))
        self._batcher = Batcher(self._run, size, options.max_batch_time, options.max_queue)
        self._bundle = bundle
        self.settings.platform = f"mindspore_{bundle.precision}"
        self.settings.versions = [f"mindspore/{ms.__version__}"]
        self.inputs, self.outputs = input_metadata(bundle), output_metadata(bundle)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request.

        Raises:
            MLServerError: 400 or 413, with what is wrong with it; 429, too much is under way.
        """
        bundle = self._bundle
        assert bundle is not None  # MLServer asks none but loaded models
        check_id(payload)
        wanted = read_wanted(payload, self.outputs)
        count = count_images(payload, self.inputs, self._limits.images)
        try:
            with self._batcher.place(count):
                tensor = payload.inputs[0]
                images = await asyncio.to_thread(read_images, tensor, bundle, self._limits)
                found = await self._batcher.answer(images)
        except BusyError as error:
            raise MLServerError(str(error), 429) from None
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=write_outputs(wanted, found, bundle),
        )

    async def unload(self) -> bool:
        """Let go of the bundle once every request that this version has taken is answered."""
        if self._bundle is not None:
            await self._batcher.drained()
            self._bundle = None
        return True

    def _run(self, images: np.ndarray) -> np.ndarray:
        assert self._bundle is not None
        rows, start = [], 0
        for size in self._plans[len(images)]:
            rows.append(self._bundle.outputs(images[start : start + size], size))
            start += size
        return np.concatenate(rows)


def _read(folder: str, options: Options) -> Bundle:
    set_up_device(options.device_target, 0, None, World())
    return load_bundle(folder, key_file=options.key_file)


def _warm_up(bundle: Bundle, size: int) -> float:
    """Compile for a batch size; give the seconds of a run."""
    edge, channels = bundle.transform.image_size, bundle.channels
    images = bundle.to_input(np.zeros((size, channels, edge, edge), np.float32))
    bundle.outputs(images, size)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        bundle.outputs(images, size)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _sizes(options: Options) -> tuple[int, ...]:
    return tuple(sizes_up_to(options.max_batch_size))


def _check(name: str, value: Any, least: int) -> None:
    if type(value) is not int or value < least:
        raise UserError(f"{name}: found {value!r}, expected a whole number >= {least}")
