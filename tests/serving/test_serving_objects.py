"""What the server answers with a detector's bundle: the very objects that predict.py tells."""

from __future__ import annotations

import base64
import contextlib
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toy_detector import OBJECTS, ToyDetector

import predict
from mindcv_poolformer.data.detection.fitting import CanvasTransform, EvalTransform
from mindcv_poolformer.export.choices import Choices
from mindcv_poolformer.export.mindir import Trained, write_bundle

pytest.importorskip("tritonclient", reason="needs the extra serving")

# isort: split
import tritonclient.grpc  # noqa: E402
import tritonclient.http  # noqa: E402
from service import Service, at_work, over_grpc, over_http  # noqa: E402
from tritonclient.utils import InferenceServerException  # noqa: E402

NAME = "retinanet_toy"
CLASSES = ("disc", "bar", "zéro")
TRANSFORM = EvalTransform((96, 64), 32, (120.0, 115.0, 100.0), (60.0, 50.0, 55.0))
THRESHOLD = 0.4


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two sizes."""
    folder = tmp_path_factory.mktemp("objects")
    (folder / "best.ckpt").write_bytes(b"")
    path = folder / "best.ckpt"
    trained = Trained(ToyDetector(), NAME, path, TRANSFORM, CLASSES, objects=OBJECTS)
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    samples = []
    for size in ((64, 96), (96, 64)):
        image, shape = CanvasTransform.of(TRANSFORM, size)(noise)
        samples.append((image[None], np.array([shape], np.int32)))
    first, *further = samples
    write_bundle(trained, folder / "bundle", first, Choices(deploy=False), further=further)
    return folder / "bundle"


@pytest.fixture(scope="module")
def service(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server of the bundle."""
    with at_work(bundle, tmp_path_factory.mktemp("service")) as one:
        yield one
    assert "Traceback" not in one.log.read_text()


@pytest.fixture(scope="module")
def written(
    bundle: Path, photos: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """What predict.py tells and writes for each photo: objects, and the overlay's pixels."""
    folder = tmp_path_factory.mktemp("written")
    words = ["predict.py", *map(str, photos), "--json", "--threshold", str(THRESHOLD)]
    words += ["--top_k", "2"]
    words += ["--bundle", str(bundle), "--output_dir", str(folder)]
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr("sys.argv", words)
        predict.main()
    return [
        {"objects": one["objects"], "overlay": np.asarray(Image.open(one["files"]["overlay"]))}
        for one in json.loads(said.getvalue())
    ]


def test_files_over_grpc(
    service: Service, photos: list[Path], written: list[dict[str, Any]]
) -> None:
    """Six pictures of all shapes in one request."""
    files = np.array([path.read_bytes() for path in photos], dtype=object)
    outputs = [tritonclient.grpc.InferRequestedOutput(name) for name in ("overlay", "objects")]
    tensors = [over_grpc("encoded", files, "BYTES")]
    parameters = {"threshold": str(THRESHOLD), "top_k": 2}  # a float would not arrive
    answer = service.grpc.infer(NAME, tensors, outputs=outputs, parameters=parameters)
    objects = [json.loads(element) for element in answer.as_numpy("objects")]
    assert objects == [one["objects"] for one in written]
    assert {0, 2} <= {len(rows) for rows in objects} <= {0, 1, 2}
    for element, one in zip(answer.as_numpy("overlay"), written, strict=True):
        file = io.BytesIO(base64.b64decode(element, validate=True))
        np.testing.assert_array_equal(Image.open(file, formats=["PNG"]), one["overlay"])


def test_many_at_once_get_their_own(
    service: Service, photos: list[Path], written: list[dict[str, Any]]
) -> None:
    def ask(number: int) -> list[dict[str, Any]]:
        client = tritonclient.grpc.InferenceServerClient(service.address)
        tensors = [over_grpc("encoded", np.array([photos[number].read_bytes()], object), "BYTES")]
        parameters = {"threshold": str(THRESHOLD), "top_k": 2}
        answer = client.infer(NAME, tensors, parameters=parameters, client_timeout=60)
        (told,) = answer.as_numpy("objects")
        return json.loads(told)

    numbers = list(range(len(photos))) * 4
    with ThreadPoolExecutor(8) as pool:
        for number, objects in zip(numbers, pool.map(ask, numbers), strict=True):
            assert objects == written[number]["objects"]


def test_the_usual_threshold_and_how_many(service: Service, photos: list[Path]) -> None:
    pixels = np.asarray(Image.open(photos[5]))[None]
    tensors = [over_http("pixels", pixels, "UINT8")]

    def ask(**parameters: Any) -> list[dict[str, Any]]:
        answer = service.http.infer(NAME, tensors, parameters=parameters)
        (told,) = answer.as_numpy("objects")
        return json.loads(told)

    every = ask(threshold=0.0)
    assert len(every) == 3 and ask() == [one for one in every if one["score"] > 0.3]
    assert ask(top_k=1, threshold=0) == every[:1]
    told = service.http.get_model_metadata(NAME)
    assert [one["name"] for one in told["outputs"]] == ["objects", "overlay"]


def png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


RIBBON = png(Image.new("1", (3_000_000, 1)))


@pytest.mark.parametrize(
    ("parameters", "file", "reason"),
    [
        ({"threshold": 2}, b"", "400.*parameter threshold: found 2, expected a number from 0 to 1"),
        ({"top_k": 2.5}, b"", "400.*parameter top_k: found 2.5, expected a whole number >= 1"),
        ({"threshold": "a"}, b"", "400.*parameter threshold: found 'a', expected a number from"),
        ({}, b"nothing", "400.*image 0: found no JPEG or PNG, expected one"),
        ({}, RIBBON, "400.*image 0: found 3000000 x 1 pixels, expected edges of at most 2,147,482"),
    ],
)
def test_refusals(service: Service, parameters: dict[str, Any], file: bytes, reason: str) -> None:
    files = np.array([base64.b64encode(file)], dtype=object)
    with pytest.raises(InferenceServerException, match=reason):
        service.http.infer(NAME, [over_http("encoded", files, "BYTES")], parameters=parameters)


def test_a_fraction_that_is_lost_over_grpc_is_told(service: Service) -> None:
    tensors = [over_grpc("pixels", np.zeros((1, 9, 9, 3), np.uint8), "UINT8")]
    for name in ("threshold", "top_k"):
        with pytest.raises(InferenceServerException, match=f"INVALID_ARGUMENT.*{name}: found None"):
            service.grpc.infer(NAME, tensors, parameters={name: 0.5})
