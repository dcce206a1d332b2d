"""What the server answers: equal to predict.py, and with a reason where it refuses."""

from __future__ import annotations

import base64
import io
import json
import struct
import urllib.error
import urllib.request
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mindcv_poolformer.data.preprocess import open_image

pytest.importorskip("tritonclient", reason="needs the extra serving")

# isort: split
import tritonclient.http  # noqa: E402
from service import CLASSES, MODEL, TRANSFORM, Service, over_grpc, over_http  # noqa: E402
from tritonclient.utils import InferenceServerException  # noqa: E402

NEAR = {"abs": 2e-6}


def grey(width: int, height: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("L", (width, height)).save(file, kind)
    return file.getvalue()


def headed(width: int, height: int) -> bytes:
    """A small PNG whose header tells another size: all that a server may read before it refuses."""
    content = bytearray(grey(9, 9))
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def infer(service: Service, tensor: dict[str, Any], **more: Any) -> tuple[int, dict[str, Any]]:
    """Ask by plain HTTP."""
    body = json.dumps({"inputs": [tensor], **more}).encode()
    return post(service, body, {"Content-Type": "application/json"})


def post(service: Service, body: Any, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
    address = f"{service.root}/v2/models/{MODEL}/infer"
    request = urllib.request.Request(address, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_files_over_grpc(service: Service, photos: list[Path], predicted: np.ndarray) -> None:
    files = np.array([path.read_bytes() for path in photos], dtype=object)
    answer = service.grpc.infer(MODEL, [over_grpc("encoded", files, "BYTES")])
    assert answer.as_numpy("probabilities") == pytest.approx(predicted, **NEAR)


def test_files_over_http(service: Service, photos: list[Path], predicted: np.ndarray) -> None:
    files = np.array([base64.b64encode(path.read_bytes()) for path in photos], dtype=object)
    answer = service.http.infer(MODEL, [over_http("encoded", files, "BYTES")])
    assert answer.as_numpy("probabilities") == pytest.approx(predicted, **NEAR)


def test_base64_as_tools_write_it(service: Service, photos: list[Path]) -> None:
    """In lines, as base64(1) and MIME break it; a data URI, as browsers give it; for URLs."""
    content = photos[0].read_bytes()
    plain, lines = text(content), base64.encodebytes(content).decode()
    uri = f"data:image/jpeg;base64,{plain}"
    quoted = uri.replace("+", "%2B").replace("/", "%2F").replace("image%2F", "image/")
    status, expected = infer(service, {**ONE, "data": [plain]})
    assert status == 200 and lines.count("\n") > 1
    urlsafe = base64.urlsafe_b64encode(content).decode().rstrip("=")
    assert set("+/=") & set(plain) and not set("+/=") & set(urlsafe)
    for form in (lines, lines.replace("\n", "\r\n"), uri, quoted, urlsafe):
        status, answer = infer(service, {**ONE, "data": [form]})
        assert (status, answer.get("outputs")) == (200, expected["outputs"]), form[:60]


def test_tensors(service: Service, photos: list[Path], predicted: np.ndarray) -> None:
    """Normalised images, and pixels of any one size, over both ways."""
    opened = [open_image(path) for path in photos]
    images = np.stack([TRANSFORM(image) for image in opened])
    pixels = np.asarray(opened[0])[None]
    for client, to_tensor in ((service.grpc, over_grpc), (service.http, over_http)):
        answer = client.infer(MODEL, [to_tensor("images", images, "FP32")])
        assert answer.as_numpy("probabilities") == pytest.approx(predicted, **NEAR)
        answer = client.infer(MODEL, [to_tensor("pixels", pixels, "UINT8")])
        assert answer.as_numpy("probabilities") == pytest.approx(predicted[:1], **NEAR)


def test_labels(service: Service, photos: list[Path], predicted: np.ndarray) -> None:
    files = np.array([path.read_bytes() for path in photos], dtype=object)
    tensors = [over_grpc("encoded", files, "BYTES")]
    answer = service.grpc.infer(MODEL, tensors, parameters={"top_k": 3})
    best = np.argsort(-predicted, axis=1)[:, :3]
    labels = [[label.decode() for label in row] for row in answer.as_numpy("labels")]
    assert labels == [[CLASSES[i] for i in row] for row in best]
    expected = np.take_along_axis(predicted, best, axis=1)
    assert answer.as_numpy("scores") == pytest.approx(expected, **NEAR)
    assert answer.as_numpy("probabilities") is None


def test_logits_and_probabilities_by_name(service: Service) -> None:
    zeros = {"name": "images", "shape": [1, 3, 32, 32], "datatype": "FP32", "data": [0.0] * 3072}
    status, answer = infer(service, zeros, outputs=[{"name": "logits"}, {"name": "probabilities"}])
    assert status == 200
    logits, probabilities = (np.array(output["data"]) for output in answer["outputs"])
    assert np.exp(logits) / np.exp(logits).sum() == pytest.approx(probabilities, abs=1e-6)


def test_nested_lists_are_flat_ones(service: Service) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (2, 9, 11, 3), dtype=np.uint8)
    tensor = {"name": "pixels", "shape": list(pixels.shape), "datatype": "UINT8"}
    flat = infer(service, {**tensor, "data": pixels.ravel().tolist()})
    nested = infer(service, {**tensor, "data": pixels.tolist()})
    assert flat[0] == nested[0] == 200
    assert flat[1]["outputs"] == nested[1]["outputs"]


def test_metadata_is_what_it_takes_and_gives(service: Service) -> None:
    metadata = service.http.get_model_metadata(MODEL)
    inputs = {one["name"]: (one["datatype"], one["shape"]) for one in metadata["inputs"]}
    assert inputs == {
        "images": ("FP32", [-1, 3, 32, 32]),
        "pixels": ("UINT8", [-1, -1, -1, 3]),
        "encoded": ("BYTES", [-1]),
    }
    outputs = [one["name"] for one in metadata["outputs"]]
    zeros = np.zeros((1, 3, 32, 32), np.float32)
    tensors = [over_http("images", zeros, "FP32")]
    answer = service.http.infer(
        MODEL, tensors, outputs=[_wanted(name) for name in outputs], parameters={"top_k": 2}
    )
    given = {
        one["name"]: (one["datatype"], one["shape"]) for one in answer.get_response()["outputs"]
    }
    for one in metadata["outputs"]:
        datatype, shape = given[one["name"]]
        assert datatype == one["datatype"]
        assert all(wish in (-1, size) for wish, size in zip(one["shape"], shape, strict=True))
    assert service.grpc.get_model_metadata(MODEL, as_json=True)["name"] == MODEL


def _wanted(name: str) -> Any:
    return tritonclient.http.InferRequestedOutput(name, binary_data=False)


def test_ready_and_not(service: Service) -> None:
    for client in (service.http, service.grpc):
        assert client.is_server_live() and client.is_server_ready()
        assert client.is_model_ready(MODEL)
    assert service.http.is_model_ready("another") is False
    with pytest.raises(InferenceServerException, match="NOT_FOUND"):
        service.grpc.is_model_ready("another")


ONE = {"name": "encoded", "shape": [1], "datatype": "BYTES"}
PIXEL = {"name": "pixels", "shape": [1, 1, 1, 3], "datatype": "UINT8"}


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.mark.parametrize(
    ("tensor", "status", "reason"),
    [
        ({**ONE, "name": "x", "data": []}, 400, "input 'x': found no such, expected one of images"),
        ({**ONE, "datatype": "FP32", "data": [1]}, 400, "found datatype 'FP32', expected BYTES"),
        ({**ONE, "shape": [1, 1], "data": [""]}, 400, "found shape [1, 1], expected [-1]"),
        ({**ONE, "shape": [0], "data": []}, 400, "found shape [0], expected [-1]"),
        ({**ONE, "shape": [2], "data": ["eA=="]}, 400, "found 1 element, expected 2"),
        ({**ONE, "data": [7]}, 400, "image 0: found no bytes"),
        ({**ONE, "data": "eA=="}, 400, "found no list as data"),
        ({**ONE, "data": ["é"]}, 400, "image 0: found no base64"),
        ({**ONE, "data": ["data:image/png,eA=="]}, 400, "image 0: found no base64"),
        ({**ONE, "data": ["eA=="]}, 400, "image 0: found no JPEG or PNG"),
        ({**ONE, "data": [text(grey(9, 9, "BMP"))]}, 400, "image 0: found no JPEG or PNG"),
        ({**ONE, "data": [text(grey(99, 99)[:60])]}, 400, "image 0: cannot be read (image file is"),
        (
            {**ONE, "data": [text(headed(6000, 6000))]},
            413,
            "found 36,000,000 pixels expected at most",
        ),
        ({**ONE, "data": [text(headed(20000, 20000))]}, 413, "image 0: found too many pixels"),
        (
            {**ONE, "data": [text(headed(1, 60000))]},
            413,
            "found 96,000,000 pixels, resized, expected",
        ),
        ({**ONE, "shape": [65], "data": []}, 413, "images: found 65, expected at most 64"),
        ({**PIXEL, "data": [1, 2]}, 400, "found 2 numbers, expected 3"),
        ({**PIXEL, "data": [1, 2, 256]}, 400, "found data that is no UINT8"),
        ({**PIXEL, "data": [1, 2, "3"]}, 400, "found data that is no UINT8"),
        ({**PIXEL, "data": [[1, 2], 3]}, 400, "found data that is no UINT8"),
        ({**PIXEL, "shape": [1, 1, 3, 1], "data": [1, 2, 3]}, 400, "expected [-1, -1, -1, 3]"),
        (
            {"name": "images", "shape": [1, 3, 32, 32], "datatype": "FP32", "data": [1e39] * 3072},
            400,
            "found Inf or NaN",
        ),
    ],
)
def test_refusals(service: Service, tensor: dict[str, Any], status: int, reason: str) -> None:
    found, answer = infer(service, tensor)
    assert (found, reason in answer["error"]) == (status, True), answer
    assert len(answer["error"]) < 300


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"outputs": [{"name": "y"}]}, "output 'y': found no such, expected one of logits"),
        ({"parameters": {"top_k": 0}}, "parameter top_k: found 0, expected a whole number >= 1"),
        ({"parameters": {"top_k": "5"}}, "parameter top_k: found '5'"),
        ({"parameters": {"top_k": True}}, "parameter top_k: found True"),
        (
            {"parameters": {"threshold": 0.5}},
            "parameter threshold: found it, expected it with a det",
        ),
        (
            {"id": "日本"},
            "id: found '\\u65e5\\u672c' of 2 characters, expected at most 128 of print",
        ),
        ({"id": "é"}, "id: found"),
        ({"id": "a\nb"}, "id: found 'a\\nb'"),
        ({"id": "a\n"}, "id: found"),
        ({"id": "a\0"}, "id: found"),
        ({"id": "a\tb"}, "id: found"),
        ({"id": " a"}, "id: found"),
        ({"id": "a "}, "id: found"),
        ({"id": "a" * 129}, "of 129 characters"),
    ],
)
def test_refused_wishes(service: Service, more: dict[str, Any], reason: str) -> None:
    status, answer = infer(service, {**PIXEL, "data": [1, 2, 3]}, **more)
    assert (status, reason in answer["error"]) == (400, True), answer


@pytest.mark.parametrize("name", ["", "a", "two words", "~" * 128])
def test_an_id_comes_back(service: Service, name: str) -> None:
    status, answer = infer(service, {**PIXEL, "data": [1, 2, 3]}, id=name)
    assert (status, answer["id"]) == (200, name)


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain"])
def test_a_body_of_another_type_is_told_what_to_say(service: Service, kind: str) -> None:
    body = json.dumps({"inputs": [{**PIXEL, "data": [1, 2, 3]}]}).encode()
    assert post(service, body, {"Content-Type": kind}) == (
        415,
        {"error": f"Content-Type: found {kind}, expected application/json"},
    )


def test_long_bodies(service: Service) -> None:
    kind = {"Content-Type": "application/json"}
    status, answer = post(service, b" " * 2_000_001, kind)
    assert (status, answer) == (
        413,
        {"error": "body: found 2,000,001 bytes, expected at most 2,000,000"},
    )
    status, _ = post(service, iter([b" " * 1_500_000] * 2), kind)  # in chunks, of no told length
    assert status == 413
    status, answer = post(service, b"", {**kind, "Content-Encoding": "gzip"})
    assert (status, answer) == (415, {"error": "Content-Encoding: found gzip, expected none"})
    pixels = np.zeros((1, 1000, 1000, 3), np.uint8)
    with pytest.raises(InferenceServerException, match="RESOURCE_EXHAUSTED"):
        service.grpc.infer(MODEL, [over_grpc("pixels", pixels, "UINT8")])


def test_validation_does_not_repeat_the_data(service: Service) -> None:
    status, answer = post(
        service,
        json.dumps({"inputs": "x" * 100_000}).encode(),
        {"Content-Type": "application/json"},
    )
    assert status == 422
    assert answer["error"].startswith("body.inputs: ") and len(answer["error"]) < 300
