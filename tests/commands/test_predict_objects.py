"""predict.py with a detector's bundle, in this process; test_predict_cli.py runs it as a user."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_detector import OBJECTS, ToyDetector

import predict
from mindcv_poolformer.data.detection.fitting import CanvasTransform, EvalTransform
from mindcv_poolformer.export.choices import Choices
from mindcv_poolformer.export.detector import load_detector_bundle
from mindcv_poolformer.export.mindir import Trained, write_bundle
from mindcv_poolformer.runtime.errors import UserError

CLASSES = ("disc", "bar", "ring")
TRANSFORM = EvalTransform((96, 64), 32, (120.0, 115.0, 100.0), (60.0, 50.0, 55.0))

Run = Callable[..., None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds bundle/ and two pictures of one name in photos/."""
    folder = tmp_path_factory.mktemp("objects")
    (folder / "photos" / "deep").mkdir(parents=True)
    for name, colour in (("a.png", (90, 200, 20)), ("deep/a.jpg", (200, 60, 120))):
        Image.new("RGB", (192, 128), colour).save(folder / "photos" / name)
    (folder / "best.ckpt").write_bytes(b"")
    path = folder / "best.ckpt"
    trained = Trained(ToyDetector(), "toy", path, TRANSFORM, CLASSES, objects=OBJECTS)
    with Image.open(folder / "photos" / "a.png") as image:
        inputs, size = CanvasTransform.of(TRANSFORM, (64, 96))(np.asarray(image))
    samples = inputs[None], np.array([size], np.int32)
    write_bundle(trained, folder / "bundle", samples, Choices(deploy=False))
    return folder


@pytest.fixture
def run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``run(*flags)`` of predict.py, from an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*flags: object) -> None:
        words = ["predict.py", "--bundle", str(folder / "bundle"), *map(str, flags)]
        monkeypatch.setattr(sys, "argv", words)
        predict.main()

    return run


def test_files_and_rows(folder: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run(folder / "photos", "--json", "--threshold", "0.4")
    results = json.loads(capsys.readouterr().out)
    bundle = load_detector_bundle(folder / "bundle")
    names = {"a.png": "a_overlay.png", "deep/a.jpg": "a_2_overlay.png"}
    for result, (name, file) in zip(results, names.items(), strict=True):
        assert result["image"] == str(folder / "photos" / name)
        assert result["files"] == {"overlay": f"predictions/{file}"}
        picture = Image.open(folder / "photos" / name)
        boxes, scores, labels = bundle.detections(picture)
        count = int((scores > 0.4).sum())
        assert 0 < count < 3
        expected = [
            {
                "index": label,
                "class": CLASSES[label],
                "category_id": (7, 2, 90)[label],
                "score": pytest.approx(score),
                "box": pytest.approx(box, abs=0.01),
            }
            for box, score, label in zip(
                boxes[:count].tolist(), scores.tolist(), labels.tolist(), strict=False
            )
        ]
        assert result["objects"] == expected
        with Image.open(result["files"]["overlay"]) as drawn:
            assert (drawn.format, drawn.size) == ("PNG", picture.size)
            # The frame of the surest, which is on top, in its class's colour: its lower edge.
            x1, _, x2, y2 = boxes[0].tolist()
            place = int((x1 + x2) / 2), min(int(y2), 127)
            assert drawn.getpixel(place) == OBJECTS.palette[labels[0]]


def test_lines_for_people_and_a_bad_file(
    folder: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.png").write_text("404 Not Found")
    photo = folder / "photos" / "a.png"
    with pytest.raises(SystemExit) as caught:
        run("bad.png", photo, "--output_dir", "out")
    assert caught.value.code == 1
    said = capsys.readouterr()
    assert said.err == "error: image bad.png is not in an image format that Pillow reads\n"
    first, *lines = said.out.splitlines()
    assert first == f"{photo}: out/a_overlay.png"
    _, scores, _ = load_detector_bundle(folder / "bundle").detections(Image.open(photo))
    sure = scores[scores > 0.3]
    assert len(sure) == 2
    assert lines == [
        f"  {sure[0]:7.2%}  bar  at 0 0 96 64",
        f"  {sure[1]:7.2%}  disc  at 0 0 192 128",
    ]


def test_the_self_test(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("--self_test")
    assert capsys.readouterr().out.startswith("self test at 64x96 px: 3 objects on 1 image, in ")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batch_size", "4"], "batch_size: found 4 with .*, a bundle of detection, expected it"),
        (["--image_size", "32"], "image_size: found 32, expected one of the bundle's: 64x96"),
        (["--runtime", "onnx"], "runtime: found onnx with no model.onnx in .*, expected one"),
    ],
)
def test_mistakes(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch, flags: list[str], message: str
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=message) as caught:
        run("photos", *flags)
    assert "\n" not in str(caught.value)
