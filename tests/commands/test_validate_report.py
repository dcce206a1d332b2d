"""The report of a validation, against scikit-learn; through validate.py, on two ranks too."""

from __future__ import annotations

import csv
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import forked
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from official import load_official_weights
from PIL import Image
from scripts import RECIPE, Ended, run, write_images
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, precision_score, recall_score
from small_network import SMALL, small

from mindcv_poolformer.data.folder import ImageFolder
from mindcv_poolformer.data.preprocess import EvalTransform
from mindcv_poolformer.evaluation.classification import Evaluation
from mindcv_poolformer.export.choices import Choices
from mindcv_poolformer.export.mindir import Trained, write_bundle
from mindcv_poolformer.report.findings import BINS, Findings
from mindcv_poolformer.report.folder import check_target, write_report
from mindcv_poolformer.runtime.errors import UserError

FACTS = {"model": "made up", "data": "data/val", "images": 0}
CLASSES = [f"class{label}" for label in (4, 0, 6, 2, 1, 3, 5, 7)]  # class7 has no images
OF_BOTH = {"mode": 1, "batch_size": 4, "compare_amp_level": "O3"}
PICTURES = {"confusion.png", "per_class.png", "calibration.png", "mistakes.png"}


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def evaluation(predictions: np.ndarray, confidences: np.ndarray) -> Evaluation:
    return Evaluation(len(predictions), 61.8, 99.0, 0.5, 100.0, predictions, confidences)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.new("RGB", (60, 30), (255, 0, 0)).save(path)
    return str(path)


def made_up(photo: str, classes: tuple[str, ...], count: int, seed: int = 0) -> Findings:
    """Predictions of two networks, of which two thirds are right; the last class has no image."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(len(classes) - 1, size=count).astype(np.int32)
    said = [
        np.where(rng.random(count) < 2 / 3, labels, rng.integers(len(classes), size=count))
        for _ in range(2)
    ]
    confidences = rng.uniform(1 / len(classes), 1, (2, count))
    images = ImageFolder(Path("data/val"), classes, (photo,) * count, labels)
    return Findings(images, classes, *map(evaluation, said, confidences))


@pytest.fixture(scope="module")
def ten(photo: str) -> Findings:
    return made_up(photo, tuple(f"class {letter}" for letter in "abcdefghij"), 300)


@pytest.fixture(scope="module")
def folder(ten: Findings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ten") / "report"
    write_report(path, ten, FACTS | {"compared": {"amp_level": "O3"}})
    return path


def test_the_confusion_matrix_is_scikit_learns(ten: Findings, folder: Path) -> None:
    expected = confusion_matrix(ten.images.labels, ten.result.predictions, labels=range(10))
    found = np.zeros((10, 10), int)
    for row in read(folder / "confusion.csv"):
        cell = int(row["index"]), int(row["predicted_index"])
        assert (row["class"], row["prediction"]) == tuple(ten.classes[index] for index in cell)
        found[cell] = row["images"]
    assert (found == expected).all()
    np.fill_diagonal(expected, 0)
    pairs = list(ten.most_confused(5))
    assert [images for *_, images in pairs] == sorted(expected.ravel())[::-1][:5]
    assert all(expected[label, prediction] == images for label, prediction, images in pairs)


def test_accuracy_and_precision_of_each_class_are_scikit_learns(
    ten: Findings, folder: Path
) -> None:
    rows = read(folder / "per_class.csv")
    truth, said = ten.images.labels, ten.result.predictions
    keys = {"labels": range(10), "average": None, "zero_division": np.nan}
    recall, precision = (score(truth, said, **keys) for score in (recall_score, precision_score))
    assert [row["class"] for row in rows] == list(ten.classes)
    for index, row in enumerate(rows[:-1]):
        assert float(row["accuracy"]) == pytest.approx(recall[index], abs=1e-6)
        assert float(row["precision"]) == pytest.approx(precision[index], abs=1e-6)
        assert int(row["images"]) == (truth == index).sum()
    assert (rows[-1]["images"], rows[-1]["accuracy"]) == ("0", "")


def test_the_calibration_curve_is_scikit_learns(ten: Findings, folder: Path) -> None:
    right, confidences = ten.result.predictions == ten.images.labels, ten.result.confidences
    accuracy, confidence = calibration_curve(right, confidences, n_bins=BINS)
    rows = read(folder / "calibration.csv")
    filled = [row for row in rows if row["images"] != "0"]
    assert len(rows) == BINS > len(filled) > 10
    assert [float(row["accuracy"]) for row in filled] == pytest.approx(accuracy, abs=1e-6)
    assert [float(row["confidence"]) for row in filled] == pytest.approx(confidence, abs=1e-6)
    weights = np.array([int(row["images"]) for row in filled]) / 300
    expected = (weights * abs(accuracy - confidence)).sum()
    found = json.loads((folder / "report.json").read_text())["calibration_error"]
    assert found == pytest.approx(expected, rel=1e-9)
    assert expected > 0.05


def test_a_network_that_is_sure_and_right_is_calibrated(photo: str) -> None:
    labels = np.arange(3, dtype=np.int32)
    images = ImageFolder(Path("val"), ("a", "b", "c"), (photo,) * 3, labels)
    sure = Findings(images, images.classes, evaluation(labels, np.ones(3)))
    assert sure.calibration_error == 0
    assert sure.calibration[-1].images == 3
    wrong = Findings(images, images.classes, evaluation(labels[::-1], np.full(3, 0.6)))
    assert wrong.calibration_error == pytest.approx(0.6 - 1 / 3)


def test_mistakes_stand_by_confidence(ten: Findings, folder: Path) -> None:
    rows = read(folder / "mistakes.csv")
    expected = sorted(
        (
            (-confidence, number)
            for number, confidence in enumerate(ten.result.confidences)
            if ten.result.predictions[number] != ten.images.labels[number]
        )
    )
    assert len(rows) == len(expected) > 24
    for row, (confidence, number) in zip(rows, expected, strict=True):
        assert row["class"] == ten.classes[ten.images.labels[number]]
        assert row["prediction"] == ten.classes[ten.result.predictions[number]]
        assert float(row["probability"]) == pytest.approx(-confidence, abs=1e-6)


def test_disagreements_are_listed(ten: Findings, folder: Path) -> None:
    rows = read(folder / "disagreements.csv")
    expected = [
        (ten.classes[first], ten.classes[second])
        for first, second in zip(ten.result.predictions, ten.compared.predictions, strict=True)
        if first != second
    ]
    assert [(row["prediction"], row["compared_prediction"]) for row in rows] == expected
    assert 0 < len(rows) < 300
    assert all(row["probability"] != row["compared_probability"] for row in rows)


def shades(path: Path, colour: tuple[int, int, int], within: int = 8) -> int:
    """How many pixels are of that colour."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return int((abs(pixels - colour) <= within).all(axis=-1).sum())


def test_the_pictures_show_it(ten: Findings, folder: Path) -> None:
    sizes = {name: Image.open(folder / name).size for name in PICTURES}
    assert all(300 < edge < 1500 for size in sizes.values() for edge in size)
    # 24 thumbnails of 2:1, each 1.7 inches wide at least
    assert 24 * 180 * 90 < shades(folder / "mistakes.png", (255, 0, 0)) < 24 * 220 * 110
    blue = shades(folder / "per_class.png", (31, 119, 180))
    assert blue > 20_000


def test_a_thousand_classes_can_be_read(photo: str, tmp_path: Path) -> None:
    findings = made_up(photo, tuple(f"n{index:08d}" for index in range(1000)), 9000)
    write_report(tmp_path / "report", findings, FACTS | {"compared": {"amp_level": "O3"}})
    width, height = Image.open(tmp_path / "report" / "confusion.png").size
    assert max(width, height) < 1500
    matrix = Image.open(tmp_path / "report" / "confusion.png").crop((0, 0, width * 6 // 7, height))
    pixels = np.asarray(matrix.convert("HSV"))
    off_diagonal = len(findings.confusion.images) - 1000
    coloured = (pixels[..., 1] > 100).sum()
    assert coloured > 4 * off_diagonal  # a cell is smaller than a pixel, its square is not
    assert Image.open(tmp_path / "report" / "per_class.png").size[1] < 1500
    assert len(read(tmp_path / "report" / "per_class.csv")) == 1000
    page = (tmp_path / "report" / "index.html").read_text()
    assert page.count("<tr>") < 40


class Page(HTMLParser):
    """Collects what a page shows: its words, and its pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.pictures: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.pictures.append(dict(attrs)["src"] or "")

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_holds_its_pictures(folder: Path) -> None:
    page = Page((folder / "index.html").read_text())
    assert len(page.pictures) == 4
    assert all(source.startswith("data:image/png;base64,") for source in page.pictures)


@pytest.mark.filterwarnings("error")
def test_names_are_shown_as_they_are(photo: str, tmp_path: Path) -> None:
    names = ("<b>&", "$x_$", "狗", b"caf\xe9".decode(errors="surrogateescape"), "a\nb", "=1+1", "z")
    write_report(
        tmp_path / "report", made_up(photo, names, 60), FACTS | {"compared": {"amp_level": "O3"}}
    )
    words = Page((tmp_path / "report" / "index.html").read_text()).words
    assert {"<b>&", "$x_$", "狗"} <= set(words)
    assert b"caf\xe9" in (tmp_path / "report" / "per_class.csv").read_bytes()


def test_no_mistake_needs_no_sheet(photo: str, tmp_path: Path) -> None:
    images = ImageFolder(Path("val"), ("a", "b"), (photo,) * 2, np.arange(2, dtype=np.int32))
    findings = Findings(images, images.classes, evaluation(np.arange(2), np.full(2, 0.9)))
    write_report(tmp_path / "report", findings, FACTS)
    assert not (tmp_path / "report" / "mistakes.png").exists()
    assert read(tmp_path / "report" / "mistakes.csv") == []
    assert not (tmp_path / "report" / "disagreements.csv").exists()


def test_only_a_report_is_overwritten(ten: Findings, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "report"
    check_target(path, overwrite=False)
    shutil.copytree(folder, path)
    with pytest.raises(UserError, match=r"report: .*report exists, .*--overwrite"):
        check_target(path, overwrite=False)
    check_target(path, overwrite=True)
    (path / "thesis.tex").touch()
    with pytest.raises(UserError, match="something else than a report"):
        check_target(path, overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="something else than a report"):
        check_target(tmp_path / "file", overwrite=True)
    with pytest.raises(UserError, match="expected a folder to write to"):
        check_target(tmp_path / "file" / "report", overwrite=False)


# Through the script


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, recipe, `net.ckpt`, whose classes stand in an order of their own, and its bundle."""
    root = tmp_path_factory.mktemp("validate_report")
    write_images(root / "data" / "val", per_class=3, classes=7)
    (root / "recipe.yaml").write_text(f"model: {SMALL}\n{RECIPE}")
    network = small(num_classes=len(CLASSES))
    load_official_weights(network)
    facts = {"model": SMALL, "num_classes": len(CLASSES), "classes": CLASSES}
    ms.save_checkpoint(network, str(root / "net.ckpt"), append_dict={"metadata": json.dumps(facts)})
    return root


def preprocess(path: Path) -> np.ndarray:
    """A 40 x 36 image: short side to 32 / 0.8 = 40 pixels, 44 x 40, centre of 32 x 32."""
    image = Image.open(path).resize((44, 40), Image.Resampling.BICUBIC).crop((6, 4, 38, 36))
    pixels = (np.asarray(image) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return pixels.transpose(2, 0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def truth(workspace: Path) -> tuple[list[str], np.ndarray]:
    """The paths of the images, and the probabilities (21, 8) in PyNative mode."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = small(num_classes=len(CLASSES))
    load_official_weights(network).set_train(False)
    paths = sorted((workspace / "data" / "val").glob("*/*.png"))
    logits = network(Tensor(np.stack([preprocess(path) for path in paths]))).asnumpy()
    odds = np.exp(logits.astype(np.float64))
    names = [str(path.relative_to(workspace)) for path in paths]
    return names, odds / odds.sum(axis=1, keepdims=True)


def validate(folder: Path, ranks: int = 1, **keys: Any) -> Ended:
    keys = {"ckpt_path": "net.ckpt", "crop_pct": 0.8, "val_interpolation": "bicubic"} | keys
    if ranks == 1:
        return forked.run("validate.py", folder, **keys)
    return run("validate.py", folder, ranks, **keys)


def assert_true(report: Path, truth: tuple[list[str], np.ndarray], within: float) -> None:
    paths, odds = truth
    right = [CLASSES[said] == Path(path).parent.name for path, said in zip(paths, odds.argmax(1))]
    wrong = [number for number, is_right in enumerate(right) if not is_right]
    found = {row["path"]: row for row in read(report / "mistakes.csv")}
    assert set(found) == {paths[number] for number in wrong}
    for number in wrong:
        row = found[paths[number]]
        assert row["class"] == Path(paths[number]).parent.name
        assert row["prediction"] == CLASSES[odds[number].argmax()]
        assert float(row["probability"]) == pytest.approx(odds[number].max(), abs=within)
    assert {path.name for path in report.iterdir()} >= PICTURES | {"index.html", "report.json"}


@pytest.fixture(scope="module")
def alone(workspace: Path) -> Ended:
    ended = validate(workspace, **OF_BOTH, report="reports/alone", result_file="result.json")
    assert (ended.code, ended.err) == (0, "")
    return ended


@pytest.mark.long
def test_validate_writes_a_report_of_both_levels(
    workspace: Path, alone: Ended, truth: tuple[list[str], np.ndarray]
) -> None:
    report = workspace / "reports" / "alone"
    assert_true(report, truth, within=1e-5)
    facts, result = (
        json.loads(path.read_text()) for path in (report / "report.json", workspace / "result.json")
    )
    assert facts.items() >= result.items()
    mistakes = len(read(report / "mistakes.csv"))
    assert facts["mistakes"] == mistakes == round(21 * (1 - facts["top1"] / 100))
    disagreements = len(read(report / "disagreements.csv"))
    assert disagreements == round(21 * (1 - facts["agreement"] / 100))
    assert re.fullmatch(
        rf"report: reports/alone/index.html, {mistakes} mistakes, "
        r"expected calibration error \d+\.\d\d%",
        alone.out.splitlines()[-1],
    )
    assert alone.out.count("report: ") == 1


def test_an_existing_report_stops_before_the_work(workspace: Path) -> None:
    (workspace / "there").mkdir(exist_ok=True)
    ended = validate(workspace, report="there")
    assert (ended.code, ended.out) == (1, "")
    assert re.fullmatch(r"error: report: there exists[^\n]*\n", ended.err)


@pytest.mark.long
def test_two_ranks_write_the_tables_of_one(workspace: Path, alone: Ended) -> None:
    ended = validate(workspace, ranks=2, **OF_BOTH, report="reports/two")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.count("report: ") == 1
    one, two = (
        {path.name: path.read_bytes() for path in (workspace / "reports" / name).glob("*.csv")}
        for name in ("alone", "two")
    )
    assert one == two and len(one) == 5


@pytest.mark.long
def test_the_deploy_form_and_a_bundle_have_reports(
    workspace: Path, truth: tuple[list[str], np.ndarray]
) -> None:
    ended = validate(workspace, mode=1, deploy=True, report="deploy")
    assert (ended.code, ended.err) == (0, "")
    assert_true(workspace / "deploy", truth, within=1e-4)
    network = small(num_classes=len(CLASSES))
    load_official_weights(network)
    transform = EvalTransform(
        32, 0.8, "bicubic", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    )
    trained = Trained(network, SMALL, workspace / "net.ckpt", transform, tuple(CLASSES))
    samples = np.stack([preprocess(workspace / path) for path in truth[0][:3]])
    write_bundle(trained, workspace / "bundle", samples, Choices(beside="ONNX"))
    ended = forked.run("validate.py", workspace, bundle="bundle", report="of_bundle")
    assert (ended.code, ended.err) == (0, "")
    assert_true(workspace / "of_bundle", truth, within=1e-4)
