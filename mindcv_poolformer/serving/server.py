"""MLServer, with limits where requests come in and an end that loses none of them."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import struct
import sys
import time
from array import array
from functools import cmp_to_key
from typing import Any

import grpc
from fastapi.exceptions import RequestValidationError
from google.protobuf.message import DecodeError
from grpc import aio
from mlserver import MLServer, ModelSettings, Settings
from mlserver.errors import MLServerError
from mlserver.grpc import GRPCServer
from mlserver.grpc.dataplane_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from mlserver.grpc.interceptors import PromServerInterceptor
from mlserver.grpc.model_repository import ModelRepositoryServicer
from mlserver.grpc.model_repository_pb2_grpc import add_ModelRepositoryServiceServicer_to_server
from mlserver.grpc.servicers import InferenceServicer
from mlserver.grpc.utils import handle_mlserver_error
from mlserver.registry import _is_newer
from mlserver.types import InferenceRequest, InferenceResponse, TensorData
from starlette.requests import Request
from starlette.responses import JSONResponse

from .edge import Edge
from .payload import CODES, BadRequestError, encode_texts
from .workers import WorkerWatch

_UNREADABLE = (struct.error, ValueError, LookupError, TypeError, OverflowError)
GRACE_SECONDS = 60  # for requests under way when the server is asked to stop
_JSON = re.compile(r"\s*application/(\S+\+)?json\s*(;|$)", re.IGNORECASE)
STREAMS = ("/generate", "/generate_stream", "/infer_stream")  # of texts, not of images


class Server(MLServer):
    """MLServer for bundles.

    Args:
        settings: MLServer's.
        max_request_bytes: of a request's body, in REST and gRPC.
        max_requests: being read or answered at once, in REST and in gRPC each; more get 429, in
            gRPC RESOURCE_EXHAUSTED.
    """

    failure: BaseException | None = None  # why a model could not be loaded at the start

    def __init__(self, settings: Settings, max_request_bytes: int, max_requests: int) -> None:
        self._max_request_bytes, self._max_requests = max_request_bytes, max_requests
        self._stopping, self._stopped = False, asyncio.Event()
        super().__init__(settings)
        pools = self._inference_pool_registry
        self._workers = WorkerWatch(pools) if pools else None

    async def start(self, models_settings: list[ModelSettings]) -> None:
        """Serve until :meth:`stop` has done its work.

        MLServer does not wait for that: its workers' answers would be waited for at the exit. It
        ends where a model cannot be loaded, with the reason in :attr:`failure`.
        """
        await super().start(models_settings)
        await self._stopped.wait()

    async def stop(self, sig: int | None = None) -> None:
        """Take no more requests, answer those under way, then end the workers.

        MLServer ends the workers first. A second signal changes nothing.
        """
        if self._stopping:
            return
        self._stopping = True
        if sig is None:  # MLServer itself asks, as it handles what a model has raised
            self.failure = sys.exc_info()[1]
        try:
            await self._stop_in_turn(sig)
        finally:
            self._stopped.set()

    async def _stop_in_turn(self, sig: int | None) -> None:
        rest = self._rest_server._server
        rest.should_exit = True
        await self._grpc_server._server.stop(GRACE_SECONDS)
        deadline = time.monotonic() + GRACE_SECONDS
        while rest.server_state.tasks and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        if self._inference_pool_registry:
            await self._inference_pool_registry.close()
        if self._metrics_server:
            await self._metrics_server.stop(sig)

    def _create_servers(self) -> None:
        self._choose_models_first()
        self._say_when_no_worker_is_left()
        super()._create_servers()
        app = self._rest_server._app
        app.router.routes[:] = [one for one in app.routes if not one.path.endswith(STREAMS)]
        app.add_exception_handler(RequestValidationError, _say_briefly)
        app.add_middleware(Edge, most_bytes=self._max_request_bytes, most=self._max_requests)
        self._grpc_server = _GRPCServer(
            self._settings, self._data_plane, self._model_repository_handlers
        )
        self._grpc_server.max_requests = self._max_requests
        for name in ("mlserver", "mlserver.grpc", "mlserver.parallel"):
            logging.getLogger(name).addFilter(_without_traceback)

    def _choose_models_first(self) -> None:
        """Have requests that name no version answered by the newest that is ready.

        A model is ready that has one, and so is the server where each model is. MLServer asks the
        newest, ready or not. And its counters keep each name and version that was ever asked for,
        if there is none.
        """
        plane, registry = self._data_plane, self._model_registry
        infer, model_ready = plane.infer, plane.model_ready

        async def chosen(name: str, version: str | None) -> str | None:
            model = await registry.get_model(name, version)
            if version or model.ready:
                return version
            ready = [one for one in await registry.get_models(name) if one.ready]
            return max(ready, key=cmp_to_key(_is_newer)).version if ready else version

        async def answered(
            payload: InferenceRequest, name: str, version: str | None = None
        ) -> InferenceResponse:
            answer = await infer(payload, name, await chosen(name, version))
            encode_texts(answer)
            return answer

        async def one_ready(name: str, version: str | None = None) -> bool:
            return await model_ready(name, await chosen(name, version))

        async def all_ready() -> bool:
            models = list(await registry.get_models())
            return {one.name for one in models} == {one.name for one in models if one.ready}

        plane.infer, plane.model_ready, plane.ready = answered, one_ready, all_ready

    def _say_when_no_worker_is_left(self) -> None:
        """Until one has been replaced nothing is ready, and requests get 503, gRPC UNAVAILABLE.

        MLServer goes on to say that it is ready, and answers with errors of its own.
        """
        plane = self._data_plane
        ready, model_ready, infer = plane.ready, plane.model_ready, plane.infer

        def left() -> bool:
            return self._workers is None or self._workers.any_answers

        async def answered(
            payload: InferenceRequest, name: str, version: str | None = None
        ) -> InferenceResponse:
            if not left():
                raise MLServerError("workers: found none, one is being started; try again", 503)
            return await infer(payload, name, version)

        async def all_ready() -> bool:
            return await ready() and left()

        async def one_ready(name: str, version: str | None = None) -> bool:
            return await model_ready(name, version) and left()

        plane.ready, plane.model_ready, plane.infer = all_ready, one_ready, answered


class _GRPCServer(GRPCServer):
    max_requests: int

    def _create_server(self) -> aio.Server:
        interceptors: list[aio.ServerInterceptor] = [_Readable()]
        if self._settings.metrics_endpoint:
            interceptors.append(PromServerInterceptor(enable_handling_time_histogram=True))
        self._server = aio.server(
            interceptors=interceptors,
            options=self._get_options(),
            maximum_concurrent_rpcs=self.max_requests,
        )
        handlers = self._model_repository_handlers
        add_GRPCInferenceServiceServicer_to_server(
            _Servicer(self._data_plane, handlers), self._server
        )
        add_ModelRepositoryServiceServicer_to_server(
            ModelRepositoryServicer(handlers), self._server
        )
        self._server.add_insecure_port(f"{self._settings.host}:{self._settings.grpc_port}")
        return self._server


class _Readable(aio.ServerInterceptor):
    """Answers a message that is none with INVALID_ARGUMENT, where gRPC would with INTERNAL."""

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)
        if handler is None or handler.unary_unary is None:
            return handler

        def read(content: bytes) -> Any:
            try:
                return handler.request_deserializer(content)
            except (DecodeError, *_UNREADABLE):
                return None

        async def answer(request: Any, context: grpc.ServicerContext) -> Any:
            if request is None:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "message: found unreadable")
            return await handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(answer, read, handler.response_serializer)


class _Servicer(InferenceServicer):
    """Tells clients of their mistakes where MLServer reports errors of its own."""

    def _InsertHeaders(self, request: Any, context: grpc.ServicerContext) -> InferenceRequest:
        keyed = self._data_plane._response_cache is not None  # by JSON, which has lists alone
        try:
            numbers = None if keyed else _taken_out(request)
            payload = super()._InsertHeaders(request, context)
            if numbers is not None:
                payload.inputs[0].data = TensorData.model_construct(root=numbers)
            return payload
        except _UNREADABLE as error:
            reason = " ".join(str(error).split())
            raise BadRequestError(f"request: found unreadable tensors ({reason:.120})") from None

    @handle_mlserver_error
    async def ModelReady(self, request: Any, context: grpc.ServicerContext) -> Any:
        return await super().ModelReady(request, context)

    @handle_mlserver_error
    async def RepositoryIndex(self, request: Any, context: grpc.ServicerContext) -> Any:
        return await super().RepositoryIndex(request, context)

    async def ModelStreamInfer(self, requests: Any, context: grpc.ServicerContext) -> Any:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "streams: expected ModelInfer")
        yield  # never reached; makes this the generator that gRPC expects


def _taken_out(request: Any) -> array[Any] | None:
    """The numbers of a request's one input, if they came as so many bytes as its shape tells.

    MLServer makes a list of them, which takes 7 ms of a core for an image of 224 px in FP32.
    """
    if len(request.inputs) != 1 or len(request.raw_input_contents) != 1:
        return None
    tensor, content = request.inputs[0], request.raw_input_contents[0]
    if tensor.datatype not in CODES or tensor.HasField("contents"):
        return None
    numbers = array(CODES[tensor.datatype])
    if len(content) != math.prod(tensor.shape) * numbers.itemsize:
        return None
    numbers.frombytes(content)
    request.ClearField("raw_input_contents")
    return numbers


async def _say_briefly(request: Request, error: RequestValidationError) -> JSONResponse:
    """The first mistake, without the data; FastAPI's own answer repeats all of it."""
    first = error.errors()[0]
    found = request.headers.get("content-type", "")
    if first["loc"][0] == "body" and not _JSON.match(found):  # taken for a text, not for a request
        wanted = "expected application/json"
        return JSONResponse({"error": f"Content-Type: found {found or 'none':.60}, {wanted}"}, 415)
    place = ".".join(map(str, first["loc"]))
    return JSONResponse({"error": f"{place:.120}: {first['msg']:.120}"}, 422)


def _without_traceback(record: logging.LogRecord) -> bool:
    """One line for a mistake of a client or in a bundle."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, MLServerError) and error.status_code < 500:
        record.exc_info = None
        record.levelno, record.levelname = logging.INFO, "INFO"
    return True
