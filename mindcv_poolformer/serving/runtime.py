"""What `mlserver start BUNDLE` runs: MLServer's interface to a bundle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import grpc
from mlserver import MLModel, ModelSettings
from mlserver.errors import MLServerError
from mlserver.grpc.utils import STATUS_CODE_MAPPING
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import get_model_uri

from ..data.preprocess import silence_pillow
from ..export.description import CLASSIFICATION, DETECTION, SEGMENTATION, read_description
from ..export.runtimes import PACKAGES, chosen, set_up, version
from ..runtime.device_thread import DEVICE
from ..runtime.errors import UserError
from .batching import Batcher, BusyError
from .classifier import ServedClassifier
from .detector import ServedDetector
from .options import Options
from .payload import check_id, count_images, read_wanted
from .segmenter import ServedSegmenter
from .task import ServedBundle

TASKS: dict[str, Callable[[str, Options], ServedBundle]] = {
    CLASSIFICATION: ServedClassifier,
    SEGMENTATION: ServedSegmenter,
    DETECTION: ServedDetector,
}
# MLServer tells gRPC's clients of 400, 404, 422 and 500; the rest is UNKNOWN to them.
STATUS_CODE_MAPPING[413] = grpc.StatusCode.INVALID_ARGUMENT
STATUS_CODE_MAPPING[429] = grpc.StatusCode.RESOURCE_EXHAUSTED
STATUS_CODE_MAPPING[503] = grpc.StatusCode.UNAVAILABLE


class PoolFormerRuntime(MLModel):
    """Classifies or segments images, or finds objects, by the bundle in `parameters.uri`."""

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
        self._served: ServedBundle | None = None

    async def load(self) -> bool:
        """Read the bundle and compile it for each shape that it runs.

        Raises:
            MLServerError: 422, with what is wrong with settings or bundle.
        """
        loop = asyncio.get_running_loop()
        folder = await get_model_uri(self.settings)
        try:
            options = Options.from_dict(self.settings.parameters.extra)
            served = await loop.run_in_executor(DEVICE, _read, folder, options)
            for shape in served.shapes:
                # One job for each, so that a model that is serving has its turn in between.
                await loop.run_in_executor(DEVICE, served.warm_up, shape)
        except UserError as error:
            raise MLServerError(str(error), 422) from None
        except PermissionError as error:
            raise MLServerError(f"{error.filename}: {error.strerror}", 422) from None
        silence_pillow()
        self._most_images = min(options.max_images, options.max_queue)  # more could never run
        beside = served.side_by_side
        # Where runs are side by side, waiting for company would only leave cores idle.
        seconds = 0.0 if beside else options.max_batch_time
        self._batcher = Batcher(served.run, served.run_size, seconds, options.max_queue, beside)
        self._served = served
        self.settings.platform = f"{served.runtime}_{served.precision}"
        self.settings.versions = [f"{PACKAGES[served.runtime]}/{version(served.runtime)}"]
        self.inputs, self.outputs = served.inputs, served.outputs
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request.

        Raises:
            MLServerError: 400 or 413, with what is wrong with it; 429, too much is under way.
        """
        served = self._served
        assert served is not None  # MLServer asks none but loaded models
        check_id(payload)
        wanted = read_wanted(payload, served.outputs)
        count = count_images(payload, served.inputs, self._most_images)
        try:
            with self._batcher.place(count):
                outputs = await served.answer(payload.inputs[0], wanted, self._batcher)
        except BusyError as error:
            raise MLServerError(str(error), 429) from None
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)

    async def unload(self) -> bool:
        """Let go of the bundle once every request that this version has taken is answered."""
        if self._served is not None:
            await self._batcher.drained()
            del self._batcher  # which holds it, too
            self._served = None
        return True


def _read(folder: str, options: Options) -> ServedBundle:
    description = read_description(folder)
    runtime = chosen(description, options.runtime, options.device_target)
    set_up(runtime, options.device_target)
    return TASKS[description.task](folder, replace(options, runtime=runtime))
