"""A thousand malformed requests: each is refused, and those in between are answered right."""

from __future__ import annotations

import copy
import http.client
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tritonclient", reason="needs the extra serving")

# isort: split
import grpc  # noqa: E402
from service import MODEL, Service, over_grpc, over_http  # noqa: E402
from tritonclient.grpc import service_pb2  # noqa: E402

REQUESTS = 625  # over each of REST and gRPC
IMAGE = np.random.default_rng(5).integers(0, 256, (1, 24, 20, 3), dtype=np.uint8)
GOOD: dict[str, Any] = {
    "id": "7",
    "parameters": {"top_k": 2},
    "inputs": [
        {
            "name": "pixels",
            "shape": list(IMAGE.shape),
            "datatype": "UINT8",
            "parameters": {"content_type": "np"},
            "data": IMAGE.ravel().tolist(),
        }
    ],
    "outputs": [{"name": "labels"}, {"name": "scores"}],
}
JUNK: tuple[Any, ...] = (
    None, True, -1, 0, 2**31, 2**63, 2**70, 1e308, -0.5, "", "é\u0000", "x" * 5000, [], [[]], {},
    [None], [1, "a"], [[1], [2, 3]], {"a": {"b": []}}, [-1, 24, 20, 3], [0], [2**40, 2**40],
    "FP32", "BYTES", "UINT8", "encoded", "images", "base64", ["/9j/4AAQ", "iVBORw0KGgo="],
)  # fmt: skip
WRONG: dict[str, list[Any]] = {
    "name": ["images", "encoded", "", "x" * 5000, "é\u0000"],
    "datatype": ["FP32", "BYTES", "FP16", "INT64", "BOOL"],
    "shape": [[], [0], [-1, 24, 20, 3], [1, 24, 20, 4], [2**40, 2**40], [2, 24, 20, 3], [1440]],
    "data": [
        [], [256] * 1440, [-1] * 1440, [0.5] * 1440, ["1"] * 1440, [None] * 1440, [[0] * 1440, 1],
        [[[]]], "AAAA", 7, {"0": 1}, [{}] * 1440, [2**70] * 1440, [[[[True]]]] * 1440, [0] * 1441,
    ],
}  # fmt: skip
PATHS = (
    "infer", "versions/9/infer", "versions//infer", "infer_stream", "ready", "", "../infer",
    "%00/infer", "generate", "docs/dataplane.json", "x" * 3000,
)  # fmt: skip
METHODS = ("ModelInfer", "ModelReady", "ModelMetadata", "RepositoryIndex", "ServerMetadata")


def places(node: Any) -> list[tuple[Any, Any]]:
    """Each (container, key) of a JSON tree."""
    keys = node.keys() if isinstance(node, dict) else range(min(len(node), 4))
    found = [(node, key) for key in keys]
    for _, key in tuple(found):
        if isinstance(node[key], (dict, list)):
            found += places(node[key])
    return found


def malformed_body(rng: random.Random) -> bytes:
    kind = rng.randrange(12)
    if kind == 0:
        return rng.randbytes(rng.randrange(400))
    text = bytearray(json.dumps(GOOD).encode())
    if kind == 1:
        return bytes(text[: rng.randrange(len(text))])
    if kind == 2:
        for _ in range(rng.randrange(1, 9)):
            text[rng.randrange(300)] = rng.randrange(256)
        return bytes(text)
    if kind == 3:
        return b"[" * rng.randrange(1, 5000) + b"]" * rng.randrange(5000)
    request = copy.deepcopy(GOOD)
    if kind > 5:  # well-formed, and wrong
        name = rng.choice(list(WRONG))
        request["inputs"][0][name] = copy.deepcopy(rng.choice(WRONG[name]))
        return json.dumps(request).encode()
    for _ in range(rng.randrange(1, 4)):
        container, key = rng.choice(places(request))
        if isinstance(container, dict) and rng.random() < 0.3:
            container.pop(key)
        else:
            container[key] = copy.deepcopy(rng.choice(JUNK))
    return json.dumps(request).encode()


def malformed_message(rng: random.Random) -> bytes:
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(rng.randrange(400))
    tensor = service_pb2.ModelInferRequest.InferInputTensor(
        name=rng.choice(("pixels", "images", "encoded", "", "x" * 999)),
        datatype=rng.choice(("UINT8", "FP32", "BYTES", "FP16", "INT64", "BOOL", "", "é")),
        shape=rng.choice(([1, 24, 20, 3], [], [0], [-1], [2**62, 2**62], [1, 3, 32, 32], [5])),
    )
    tensor.parameters["content_type"].string_param = rng.choice(("np", "base64", "str", "x"))
    tensor.contents.bytes_contents.extend(rng.choice(([], [b"\xff\xd8\xff"], [b"", b"a"])))
    tensor.contents.fp32_contents.extend(rng.choice(([], [float("nan")], [1.0] * 9)))
    tensor.contents.uint_contents.extend(rng.choice(([], [300], [1] * 1440)))
    request = service_pb2.ModelInferRequest(
        model_name=rng.choice((MODEL, MODEL, MODEL, "", "another", "x" * 999)),
        model_version=rng.choice(("", "", "9", "é")),
        inputs=[tensor] * rng.choice((0, 1, 1, 1, 2)),
        raw_input_contents=rng.choice(([], [b""], [IMAGE.tobytes()], [b"\xff\xff\xff\xffa"] * 3)),
    )
    request.parameters["top_k"].int64_param = rng.choice((-1, 0, 2, 2**62))
    if rng.random() < 0.3:
        request.outputs.add(name=rng.choice(("labels", "y", "")))
    content = bytearray(request.SerializeToString())
    if kind == 1 and content:
        for _ in range(rng.randrange(1, 6)):
            content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content)


def right_answers(service: Service) -> tuple[Any, Any]:
    rest = service.http.infer(MODEL, [over_http("pixels", IMAGE, "UINT8")])
    rpc = service.grpc.infer(MODEL, [over_grpc("pixels", IMAGE, "UINT8")])
    return rest.as_numpy("probabilities"), rpc.as_numpy("probabilities")


@pytest.mark.long
def test_malformed_requests(served: Path, tmp_path: Path) -> None:
    service = Service(served, tmp_path)
    try:
        service.wait()
        fuzz(service)
        assert service.end() == 0
    finally:
        service.running.kill()


def fuzz(service: Service) -> None:
    rng = random.Random(11)
    expected = right_answers(service)
    channel = grpc.insecure_channel(service.address)
    statuses: dict[Any, int] = {}
    resident = []
    for number in range(REQUESTS):
        status = rest(service, rng)
        statuses[status] = statuses.get(status, 0) + 1
        code = rpc(channel, rng)
        statuses[code] = statuses.get(code, 0) + 1
        if number % 50 == 0:
            for found, wanted in zip(right_answers(service), expected, strict=True):
                assert found == pytest.approx(wanted, abs=1e-6)
            assert service.running.process.poll() is None
            resident.append(service.resident())
    print(statuses, [round(one) for one in resident])
    bad = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert not [one for one in statuses if one in bad or (isinstance(one, int) and one >= 500)]
    assert statuses[400] > 50 and statuses[422] > 50
    assert statuses[grpc.StatusCode.INVALID_ARGUMENT] > 250
    half = len(resident) // 2
    assert max(resident[half:]) - max(resident[3:half]) < 12, resident


def rest(service: Service, rng: random.Random) -> int:
    connection = http.client.HTTPConnection(service.root.removeprefix("http://"), timeout=60)
    path = f"/v2/models/{MODEL}/{'infer' if rng.random() < 0.85 else rng.choice(PATHS)}"
    if rng.random() < 0.05:
        path = f"/v2/models/{rng.randbytes(6).hex()}/infer"
    kind = rng.choice(("application/json",) * 30 + ("text/plain", "multipart/form-data", ""))
    method = rng.choice(("POST",) * 12 + ("GET", "PUT", "DELETE"))
    headers = {"Content-Type": kind}
    if rng.random() < 0.05:
        headers["Content-Encoding"] = rng.choice(("gzip", "br", "x"))
    try:
        connection.request(method, path, malformed_body(rng), headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def rpc(channel: grpc.Channel, rng: random.Random) -> grpc.StatusCode:
    method = "ModelInfer" if rng.random() < 0.85 else rng.choice(METHODS)
    call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
    try:
        call(malformed_message(rng), timeout=60)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK
