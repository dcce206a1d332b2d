"""What the server answers with a segmenter's bundle: pixel by pixel what predict.py writes."""

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
from toy_segmenter import ToySegmenter

import predict
from mindcv_poolformer.data.segmentation.fitting import EvalTransform
from mindcv_poolformer.data.segmentation.labelling import Labelling
from mindcv_poolformer.data.segmentation.stretch import StretchTransform
from mindcv_poolformer.export.choices import Choices
from mindcv_poolformer.export.mindir import Trained, write_bundle

pytest.importorskip("tritonclient", reason="needs the extra serving")

# isort: split
import tritonclient.grpc  # noqa: E402
import tritonclient.http  # noqa: E402
from service import Service, at_work, over_grpc, over_http  # noqa: E402
from tritonclient.utils import InferenceServerException  # noqa: E402

pytestmark = pytest.mark.long

NAME = "semantic_fpn_toy"
CLASSES = ("sky", "sea", "sand", "zéro", "bird")
PALETTE = ((10, 20, 30), (40, 50, 60), (70, 80, 90), (100, 110, 120), (255, 0, 128))
TRANSFORM = EvalTransform((128, 64), 32, (120.0, 115.0, 100.0), (60.0, 50.0, 55.0))
SIZES = ((64, 96), (96, 64), (64, 64))
OUTPUTS = ("label_map", "overlay", "classes")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of three sizes; in label files the first class is 1."""
    folder = tmp_path_factory.mktemp("segments")
    (folder / "best.ckpt").write_bytes(b"")
    labelling = Labelling(PALETTE, reduce_zero_label=True)
    trained = Trained(ToySegmenter(), NAME, folder / "best.ckpt", TRANSFORM, CLASSES, labelling)
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    first, *further = (StretchTransform.of(TRANSFORM, size)(noise)[None] for size in SIZES)
    write_bundle(trained, folder / "bundle", first, Choices(deploy=False), further=further)
    return folder / "bundle"


@pytest.fixture(scope="module")
def segments(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server of the bundle with a worker, so that all answers pass a pipe."""
    worker = {"MLSERVER_PARALLEL_WORKERS": "1"}
    with at_work(bundle, tmp_path_factory.mktemp("service"), variables=worker) as one:
        yield one
    log = one.log.read_text()  # in which MLServer's worker traces what is refused
    assert log.count("Traceback") == log.count("\nmindcv_poolformer.serving.payload.BadRequest")


@pytest.fixture(scope="module")
def written(
    bundle: Path, photos: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """What predict.py tells and writes for each photo, as OUTPUTS: pixels twice, and classes."""
    folder = tmp_path_factory.mktemp("written")
    words = ["predict.py", *map(str, photos), "--json", "--top_k", "5"]
    words += ["--bundle", str(bundle), "--output_dir", str(folder)]
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr("sys.argv", words)
        predict.main()
    return [
        {
            "label_map": np.asarray(Image.open(one["files"]["labels"])),
            "overlay": np.asarray(Image.open(one["files"]["overlay"])),
            "classes": one["classes"],
        }
        for one in json.loads(said.getvalue())
    ]


def read(answer: Any) -> list[dict[str, Any]]:
    """For each picture what its answer has of OUTPUTS."""
    found: dict[str, list[Any]] = {}
    for name in OUTPUTS:
        if (elements := answer.as_numpy(name)) is None:
            continue
        if name == "classes":
            found[name] = [json.loads(element) for element in elements]
        else:
            files = [io.BytesIO(base64.b64decode(element, validate=True)) for element in elements]
            images = [Image.open(file, formats=["PNG"]) for file in files]
            assert {one.mode for one in images} == {"L" if name == "label_map" else "RGB"}
            found[name] = [np.asarray(one) for one in images]
    return [dict(zip(found, row)) for row in zip(*found.values(), strict=True)]


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for name, value in one.items():
            if name == "classes":
                assert value == other[name]
            else:
                np.testing.assert_array_equal(value, other[name])


def test_files_over_grpc(
    segments: Service, photos: list[Path], written: list[dict[str, Any]]
) -> None:
    """Six pictures of all shapes in one request."""
    files = np.array([path.read_bytes() for path in photos], dtype=object)
    outputs = [tritonclient.grpc.InferRequestedOutput(name) for name in OUTPUTS]
    answer = segments.grpc.infer(NAME, [over_grpc("encoded", files, "BYTES")], outputs=outputs)
    found = read(answer)
    assert_same(found, written)
    assert {len(np.unique(one["label_map"])) for one in found} != {1}
    assert len({one["label_map"].shape for one in found}) == len(photos)
    assert list(found[0]) == list(OUTPUTS)


def test_files_over_http(
    segments: Service, photos: list[Path], written: list[dict[str, Any]]
) -> None:
    """What comes if no output is named."""
    files = np.array([base64.b64encode(path.read_bytes()) for path in photos], dtype=object)
    answer = segments.http.infer(NAME, [over_http("encoded", files, "BYTES")])
    found = read(answer)
    assert_same(found, written)
    assert list(found[0]) == ["label_map", "classes"]
    assert answer.get_output("label_map")["parameters"] == {"content_type": "base64"}


def test_pixels_and_how_many_classes(
    segments: Service, photos: list[Path], written: list[dict[str, Any]]
) -> None:
    picture = np.asarray(Image.open(photos[5]))
    pixels = np.stack([picture, picture[::-1]])
    tensors = [over_grpc("pixels", pixels, "UINT8")]
    first, second = read(segments.grpc.infer(NAME, tensors, parameters={"top_k": 2}))
    np.testing.assert_array_equal(first["label_map"], written[5]["label_map"])
    assert first["classes"] == written[5]["classes"][:2] and len(written[5]["classes"]) > 2
    assert (second["label_map"] != first["label_map"]).any()


def test_many_at_once_get_their_own(
    segments: Service, photos: list[Path], written: list[dict[str, Any]]
) -> None:
    def ask(number: int) -> Any:
        client = tritonclient.grpc.InferenceServerClient(segments.address)
        file = np.array([photos[number].read_bytes()], dtype=object)
        return client.infer(NAME, [over_grpc("encoded", file, "BYTES")], client_timeout=60)

    numbers = list(range(len(photos))) * 4
    with ThreadPoolExecutor(8) as pool:
        for number, answer in zip(numbers, pool.map(ask, numbers), strict=True):
            assert_same(read(answer), [written[number]])


def test_metadata_is_of_pictures(segments: Service) -> None:
    told = segments.http.get_model_metadata(NAME)
    ends = {
        end: {one["name"]: (one["datatype"], one["shape"]) for one in told[end]}
        for end in ("inputs", "outputs")
    }
    assert ends["inputs"] == {"pixels": ("UINT8", [-1, -1, -1, 3]), "encoded": ("BYTES", [-1])}
    assert ends["outputs"] == {name: ("BYTES", [-1]) for name in OUTPUTS}
    assert told["platform"] == "mindspore_fp32"


@pytest.mark.parametrize(
    ("size", "outputs", "reason"),
    [
        (None, (), "400.*image 1: found no JPEG or PNG, expected one"),
        ((300_000, 1), (), "413.*300000 x 1: found 28,800,000 pixels, resized, expected at most"),
        ((9, 9), ("logits",), "400.*output 'logits': found no such, expected one of label_map, ov"),
    ],
)
def test_refusals(
    segments: Service, size: tuple[int, int] | None, outputs: tuple[str, ...], reason: str
) -> None:
    good, file = io.BytesIO(), io.BytesIO(b"nothing")
    Image.new("L", (20, 20)).save(good, "PNG")
    if size:
        Image.new("L", size).save(file, "PNG")
    files = [base64.b64encode(one.getvalue()) for one in (good, file)]
    tensors = [over_http("encoded", np.array(files, dtype=object), "BYTES")]
    asked = [tritonclient.http.InferRequestedOutput(name, binary_data=False) for name in outputs]
    with pytest.raises(InferenceServerException, match=reason):
        segments.http.infer(NAME, tensors, outputs=asked or None)
