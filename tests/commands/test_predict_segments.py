"""predict.py with a segmenter's bundle, in this process; test_predict_cli.py runs it as a user."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

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
from mindcv_poolformer.export.picture_files import file_names
from mindcv_poolformer.export.segmenter import load_segmenter_bundle
from mindcv_poolformer.runtime.errors import UserError

CLASSES = ("sky", "sea", "sand", "boat", "bird")
PALETTE = ((10, 20, 30), (40, 50, 60), (70, 80, 90), (100, 110, 120), (255, 0, 128))
TRANSFORM = EvalTransform((128, 64), 32, (120.0, 115.0, 100.0), (60.0, 50.0, 55.0))

Predict = Callable[..., list[dict]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds bundle/ and three pictures, two of the same name, in photos/."""
    folder = tmp_path_factory.mktemp("segments")
    (folder / "photos" / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (90, 60)), ("b.jpg", (50, 70)), ("deep/a.png", (64, 64))):
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize(size, Image.Resampling.BILINEAR)
        image.save(folder / "photos" / name)
    (folder / "best.ckpt").write_bytes(b"")
    labelling = Labelling(PALETTE, reduce_zero_label=True)
    trained = Trained(ToySegmenter(), "toy", folder / "best.ckpt", TRANSFORM, CLASSES, labelling)
    with Image.open(folder / "photos" / "a.png") as image:
        first, second = (
            StretchTransform.of(TRANSFORM, size)(image)[None] for size in ((64, 96), (64, 64))
        )
    write_bundle(trained, folder / "bundle", first, Choices(deploy=False), further=[second])
    return folder


@pytest.fixture
def run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``run(*flags)`` of predict.py, from an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*flags: object) -> None:
        words = ["predict.py", "--bundle", str(folder / "bundle"), *map(str, flags)]
        monkeypatch.setattr(sys, "argv", words)
        predict.main()

    return run


def test_files_and_shares(
    folder: Path,
    run: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(folder / "photos", "--json")
    results = json.loads(capsys.readouterr().out)
    names = {"a.png": "a", "b.jpg": "b", "deep/a.png": "a_2"}
    bundle = load_segmenter_bundle(folder / "bundle")
    assert [one["image"] for one in results] == [str(folder / "photos" / name) for name in names]
    for result, (name, stem) in zip(results, names.items(), strict=True):
        picture = Image.open(folder / "photos" / name)
        expected = bundle.label_map(picture)
        files = {"labels": f"predictions/{stem}.png", "overlay": f"predictions/{stem}_overlay.png"}
        assert result["files"] == files
        with Image.open(files["labels"]) as image:
            assert (image.format, image.mode) == ("PNG", "L")
            np.testing.assert_array_equal(np.asarray(image), expected + 1)
        half = (np.asarray(picture, float) + np.array(PALETTE)[expected]) / 2
        with Image.open(files["overlay"]) as image:
            assert abs(np.asarray(image) - half).max() <= 1
        counts = np.bincount(expected.ravel(), minlength=5) / expected.size
        found = {row["index"]: row["share"] for row in result["classes"]}
        assert found == pytest.approx({i: c for i, c in enumerate(counts) if c})
        shares = [row["share"] for row in result["classes"]]
        assert shares == sorted(shares, reverse=True) and len(shares) > 1
        assert all(row["class"] == CLASSES[row["index"]] for row in result["classes"])


def test_lines_for_people_and_a_bad_file(
    folder: Path, run: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.png").write_text("404 Not Found")
    photo = folder / "photos" / "b.jpg"
    with pytest.raises(SystemExit) as caught:
        run("bad.png", photo, "--top_k", "1", "--output_dir", "out")
    assert caught.value.code == 1
    said = capsys.readouterr()
    assert said.err == "error: image bad.png is not in an image format that Pillow reads\n"
    first, second = said.out.splitlines()
    assert first == f"{photo}: out/b.png, out/b_overlay.png"
    labels = np.asarray(Image.open("out/b.png"))
    best = np.bincount(labels.ravel()).argmax()
    assert second == f"  {(labels == best).mean():7.2%}  {CLASSES[best - 1]}"


def test_the_self_test_is_of_every_size_or_one(
    run: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    run("--self_test")
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "self test at 64x96 px",
        "self test at 64 px",
    ]
    run("--self_test", "--image_size", "64x96")
    assert capsys.readouterr().out.startswith("self test at 64x96 px: logits of 1 image, ")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batch_size", "4"], "batch_size: found 4 with .*, a bundle of segmentation, expected"),
        (["--image_size", "32"], "image_size: found 32, expected one of the bundle's: 64x96, 64"),
        (["--output_dir", "photos"], "output_dir: found photos/a.png among the images, expected"),
        (["--runtime", "onnx"], "runtime: found onnx with no model.onnx in .*, expected one"),
    ],
)
def test_mistakes(
    folder: Path,
    run: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=message) as caught:
        run("photos", *flags)
    assert "\n" not in str(caught.value)
    assert len(list((folder / "photos").rglob("*.*"))) == 3


def test_no_two_files_have_one_name() -> None:
    paths = [Path(name) for name in ("a.png", "b/a.jpg", "a_overlay.png", "a_2.png")]
    assert list(file_names(paths, ("", "_overlay"))) == [
        ("a.png", "a_overlay.png"),
        ("a_2.png", "a_2_overlay.png"),
        ("a_overlay_2.png", "a_overlay_2_overlay.png"),
        ("a_2_2.png", "a_2_2_overlay.png"),
    ]
