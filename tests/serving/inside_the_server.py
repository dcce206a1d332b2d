"""What the server's classes do where they run.

test_serving_inside.py runs it in a process of its own: MLServer's messages and tritonclient's
cannot both be imported.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
import time
from array import array
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import psutil
import pytest
from mlserver import ModelSettings, Settings
from mlserver.codecs.json import encode_to_json_bytes
from mlserver.errors import MLServerError
from mlserver.grpc.converters import ModelInferResponseConverter
from mlserver.grpc.dataplane_pb2 import ModelInferRequest
from mlserver.handlers import DataPlane, ModelRepositoryHandlers
from mlserver.registry import MultiModelRegistry
from mlserver.repository import ModelRepositoryFactory
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse, Parameters, RequestInput
from prometheus_client import REGISTRY

from mindcv_poolformer.runtime.cores import THREADS
from mindcv_poolformer.runtime.device_thread import DEVICE, threads_for
from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.serving.__main__ import serve
from mindcv_poolformer.serving.classifier import ServedClassifier
from mindcv_poolformer.serving.options import Options
from mindcv_poolformer.serving.payload import encode_texts, texts
from mindcv_poolformer.serving.runtime import PoolFormerRuntime
from mindcv_poolformer.serving.server import Server, _Servicer, _taken_out
from mindcv_poolformer.serving.settings import BundleRepository

BUNDLE = os.environ["BUNDLE"]  # a classifier's, of images of 32 px


@pytest.mark.parametrize(
    ("threads", "options", "run_size", "beside", "shapes"),
    [
        (2, Options(max_batch_size=8), 8, (2, 4), [1]),
        (1, Options(max_batch_size=8), 8, None, [8]),
        (2, Options(max_batch_size=8, batch_sizes=(1, 4)), 8, None, [1, 4]),
        (2, Options(max_batch_size=1), 1, (2, 1), [1]),
    ],
    ids=["two", "one thread", "fixed sizes", "one image"],
)
def test_runs_side_by_side(
    threads: int,
    options: Options,
    run_size: int,
    beside: tuple[int, int] | None,
    shapes: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(THREADS, str(threads))
    served = ServedClassifier(BUNDLE, options)
    assert (served.run_size, list(served.shapes)) == (run_size, shapes)
    runs = served.side_by_side
    assert (runs and (runs.count, runs.size)) == beside
    for shape in served.shapes:
        served.warm_up(shape)
    images = np.random.default_rng(0).normal(size=(9, 3, 32, 32)).astype(np.float32)
    session = onnxruntime.InferenceSession(f"{BUNDLE}/model.onnx")
    (logits,) = session.run(None, {"images": images})
    for run in (served.run, runs.run) if runs else (served.run,):
        np.testing.assert_allclose(run(images), logits, rtol=0, atol=1e-5)


def test_unloading_leaves_no_thread_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(THREADS, "2")
    tensor = RequestInput(name="pixels", shape=[1, 1, 1, 3], datatype="UINT8", data=[1, 2, 3])
    parameters = ModelParameters(uri=BUNDLE, extra={"max_batch_size": 8})
    settings = ModelSettings(name="one", implementation=PoolFormerRuntime, parameters=parameters)

    async def test() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        together, both = threading.Barrier(2), threads_for(2)
        for started in [both.submit(together.wait, 20) for _ in range(2)]:
            started.result()
        DEVICE.submit(int).result()
        await asyncio.to_thread(int)
        process = psutil.Process()
        before = process.num_threads()
        model = PoolFormerRuntime(settings)
        await model.load()
        await asyncio.gather(*(model.predict(InferenceRequest(inputs=[tensor])) for _ in range(9)))
        assert process.num_threads() > before  # ONNX Runtime's
        await model.unload()
        deadline = time.monotonic() + 10  # one that has ended is still counted for a moment
        while process.num_threads() > before and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        assert process.num_threads() == before

    asyncio.run(test())


def asked(*raw: bytes, inputs: int = 1, datatype: str = "FP32", **contents: Any) -> Any:
    """A request for inputs of three numbers."""
    one = ModelInferRequest.InferInputTensor(name="images", datatype=datatype, shape=[1, 3])
    for name, values in contents.items():
        getattr(one.contents, name).extend(values)
    return ModelInferRequest(inputs=[one] * inputs, raw_input_contents=raw)


NUMBERS = array("f", [1.5, -2.0, 3.25])


def test_bytes_that_fit_are_taken_as_they_are() -> None:
    request = asked(NUMBERS.tobytes())
    assert _taken_out(request) == NUMBERS
    assert not request.raw_input_contents  # MLServer would make a list of them
    assert _taken_out(asked(b"\1\2\xff", datatype="UINT8")) == array("B", [1, 2, 255])


@pytest.mark.parametrize(
    "request_",
    [
        asked(NUMBERS.tobytes()[:-1]),
        asked(NUMBERS.tobytes() + b"\0\0\0\0"),
        asked(),
        asked(NUMBERS.tobytes(), NUMBERS.tobytes(), inputs=2),
        asked(NUMBERS.tobytes(), NUMBERS.tobytes()),
        asked(b"\0" * 12, datatype="BYTES"),
        asked(NUMBERS.tobytes(), fp32_contents=[1.0, 2.0, 3.0]),
    ],
    ids=["short", "long", "none", "two inputs", "two contents", "bytes", "contents"],
)
def test_others_are_left_to_mlserver(request_: Any) -> None:
    before = request_.SerializeToString()
    assert _taken_out(request_) is None
    assert request_.SerializeToString() == before


@pytest.fixture
def counters() -> Iterator[None]:
    """Lets a test make MLServer's counters, which a process can hold once."""
    before = set(REGISTRY._collector_to_names)
    yield
    for one in set(REGISTRY._collector_to_names) - before:
        REGISTRY.unregister(one)


@pytest.mark.usefixtures("counters")
def test_where_answers_are_kept_numbers_are_the_list_that_they_are_kept_by() -> None:
    registry = MultiModelRegistry()
    settings = Settings(cache_enabled=True)
    plane = DataPlane(settings, registry)
    repository = ModelRepositoryFactory.resolve_model_repository(settings)
    servicer = _Servicer(plane, ModelRepositoryHandlers(repository, registry))
    context: Any = SimpleNamespace(invocation_metadata=lambda: ())
    read = [servicer._InsertHeaders(asked(NUMBERS.tobytes()), context)]
    plane._response_cache = None
    read.append(servicer._InsertHeaders(asked(NUMBERS.tobytes()), context))
    assert [one.inputs[0].data.root for one in read] == [list(NUMBERS), NUMBERS]
    assert [type(one.inputs[0].data.root) for one in read] == [list, array]


@pytest.mark.usefixtures("counters")
def test_while_the_newest_loads_the_newest_that_is_ready_answers() -> None:
    def of(version: str) -> ModelSettings:
        parameters = ModelParameters(uri=BUNDLE, version=version)
        return ModelSettings(name="one", implementation=PoolFormerRuntime, parameters=parameters)

    async def test() -> None:
        server = Server(Settings(parallel_workers=0), 1, 1)
        plane = server._data_plane
        for version in ("9", "10", "8"):
            await server._model_registry.load(of(version))
        server._model_registry._models["one"]._register(PoolFormerRuntime(of("11")))
        assert await plane.ready() and await plane.model_ready("one")
        assert not await plane.model_ready("one", "11")
        tensor = RequestInput(name="pixels", shape=[1, 1, 1, 3], datatype="UINT8", data=[1, 2, 3])
        answer = await server._data_plane.infer(InferenceRequest(inputs=[tensor]), "one")
        assert answer.model_version == "10"

    asyncio.run(test())


@pytest.mark.usefixtures("counters")
def test_text_reaches_those_who_ask_with_typed_contents() -> None:
    async def test() -> None:
        server = Server(Settings(parallel_workers=0, cache_enabled=True), 1, 1)
        parameters = ModelParameters(uri=BUNDLE)
        await server._model_registry.load(
            ModelSettings(name="one", implementation=PoolFormerRuntime, parameters=parameters)
        )
        tensor = RequestInput(name="pixels", shape=[1, 1, 1, 3], datatype="UINT8", data=[1, 2, 3])
        request = InferenceRequest(inputs=[tensor], parameters=Parameters(top_k=1))
        for _ in range(2):  # computed, and from the cache
            answer = await server._data_plane.infer(request, "one")
            told = json.loads(encode_to_json_bytes(answer.model_dump()))["outputs"][0]["data"]
            labels, _ = ModelInferResponseConverter.from_types(answer).outputs
            assert list(labels.contents.bytes_contents) == [told[0].encode()]

    asyncio.run(test())
    pictures = texts([{"overlay": "é"}], ["overlay"], ["overlay"])
    answer = InferenceResponse(model_name="one", outputs=pictures)
    encode_texts(answer)
    (output,) = ModelInferResponseConverter.from_types(answer).outputs
    assert list(output.contents.bytes_contents) == ["é".encode()]


MODEL = {"name": "one", "implementation": "mindcv_poolformer.serving.runtime.PoolFormerRuntime"}


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("model-settings.json", "{", "/model-settings.json: cannot be read (Expecting property"),
        (
            "model-settings.json",
            json.dumps({**MODEL, "parameters": {"version": 2}}),
            "/model-settings.json: cannot be read (parameters.version: found 2: Input should be a",
        ),
        ("settings.json", "{", "/settings.json, variables MLSERVER_...: cannot be read (Expecting"),
        ("settings.json", "[]", "/settings.json, variables MLSERVER_...: cannot be read ("),
        ("settings.json", '{"http_port": 70000}', "http_port: found 70000, expected a port from 0"),
        (
            "settings.json",
            '{"http_port": 18437, "grpc_port": 18437}',
            "grpc_port: cannot listen on 127.0.0.1:18437 (Address already in use), expected a free",
        ),
        ("MLSERVER_HTTP_PORT", "abc", "MLSERVER_...: cannot be read (http_port: found 'abc'"),
    ],
)
def test_settings_that_cannot_be_are_a_line(
    name: str, content: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model-settings.json").write_text(json.dumps(MODEL))
    if name.startswith("MLSERVER_"):
        monkeypatch.setenv(name, content)
    else:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=re.escape(line)):
        asyncio.run(serve(str(tmp_path), 1, 1))


@pytest.mark.parametrize(
    ("first", "second", "line"),
    [
        ("1", "2", None),
        ("1", "1", "/two/model-settings.json: found one of version 1 beside version 1 in /"),
        (None, None, "found one of version None beside version None"),
        ("1", None, "found one of version None beside version 1"),
        ("", "2", "found one of version 2 beside version  in"),
    ],
)
def test_versions_of_a_model_are_told_apart(
    first: str | None, second: str | None, line: str | None, tmp_path: Path
) -> None:
    for folder, version in (("one", first), ("two", second)):
        (tmp_path / folder).mkdir()
        settings = {**MODEL, "parameters": {"version": version}}
        (tmp_path / folder / "model-settings.json").write_text(json.dumps(settings))
    repository = BundleRepository(str(tmp_path))
    if line is None:
        assert [one.version for one in asyncio.run(repository.list())] == [first, second]
        return
    with pytest.raises(MLServerError, match=re.escape(line)) as caught:
        asyncio.run(repository.list())
    assert caught.value.status_code == 422
