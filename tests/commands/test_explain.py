"""explain.py as a user runs it: a network that tells colours must look where they are."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import mindcv
import numpy as np
import pytest
from colours import tell_colours
from mindspore import Tensor
from PIL import Image
from scripts import ROOT, Running
from small_network import SMALL, small

import explain
from mindcv_poolformer import classify
from mindcv_poolformer.data.preprocess import EvalTransform
from mindcv_poolformer.data.processor import ImageProcessor
from mindcv_poolformer.explaining.explanation import Explainer
from mindcv_poolformer.explaining.overlay import as_picture
from mindcv_poolformer.models import PoolFormer
from mindcv_poolformer.runtime.checkpoint_file import save_checkpoint
from mindcv_poolformer.runtime.errors import UserError

CLASSES = ("red", "green", "blue", "0", "tawny owl, Strix aluco")
TRANSFORM = EvalTransform(128, 0.8, "bicubic", (0.0,) * 3, (255.0,) * 3)
RED, GREEN = (120, 16, 152, 48), (56, 80, 88, 112)  # left, top, right, bottom


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, small_is_known: None) -> Path:
    """A folder with a network that tells colours, one without classifier, and pictures.

    Of a picture of 240 x 160 the network sees the middle 128 x 128.
    """
    folder = tmp_path_factory.mktemp("work")
    for name, classes in (("colours.ckpt", CLASSES), ("headless.ckpt", ())):
        network = small(num_classes=len(classes))
        tell_colours(network, scale=2.0)
        facts = {"model": SMALL, "num_classes": len(classes), "in_channels": 3}
        facts |= {"classes": list(classes), "preprocessing": TRANSFORM.to_dict()}
        save_checkpoint(folder / name, {p.name: p for p in network.get_parameters()}, facts)
    pixels = np.zeros((160, 240, 3), np.uint8)
    for channel, (left, top, right, bottom) in enumerate((RED, GREEN)):
        pixels[top:bottom, left:right, channel] = 255
    for name in ("a/1.png", "b/1.png"):
        (folder / name).parent.mkdir()
        Image.fromarray(pixels).save(folder / name)
    (folder / "bundle").mkdir()
    (folder / "bundle" / "model.json").write_text("{}")
    (folder / "photos").mkdir()
    (folder / "photos" / "mine.png").write_bytes(b"dear")
    return folder


def change(folder: Path, name: str, box: tuple[int, int, int, int]) -> float:
    """How much an overlay differs from its picture within a part of the image, on average."""
    picture = as_picture(Image.open(folder / "a/1.png"))
    drawn = np.asarray(Image.open(folder / name), np.float64)
    assert drawn.shape[:2] == picture.size[::-1] == (341, 512)
    left, top, right, bottom = (round(edge * 512 / 240) for edge in box)
    return abs(drawn - np.asarray(picture))[top:bottom, left:right].mean()


@pytest.mark.long
def test_each_class_lights_up_where_its_colour_is(work: Path) -> None:
    words = ["a", "b/1.png", "--model", "colours.ckpt", "--classes", "green", "red", "--sheet"]
    python = [sys.executable, str(ROOT / "tests" / "small_network.py")]
    command = [*python, str(ROOT / "explain.py"), *words, "--output", "out/deep"]
    ended = Running(work, command).finish()
    assert (ended.code, ended.err) == (0, "")
    names = [f"00{n}_1_{label}.png" for n in (1, 2) for label in ("1_green", "0_red")]
    assert {path.name for path in (work / "out/deep").iterdir()} == {
        *names,
        "explained.json",
        "sheet.png",
    }
    index = json.loads((work / "out/deep/explained.json").read_text())
    assert [entry["file"] for entry in index] == names
    assert [entry["image"] for entry in index] == ["a/1.png"] * 2 + ["b/1.png"] * 2
    answers = dict(classify(work / "a/1.png", work / "colours.ckpt"))
    for entry in index:
        assert entry["probability"] == pytest.approx(answers[entry["class"]], abs=1e-5)
    lines = ended.out.splitlines()
    assert lines[:2] == ["a/1.png", f"  green ({answers['green']:.1%}): {names[0]}"]
    assert lines[-2] == "colours.ckpt: maps of stage 3, 4 x 4 places"
    assert lines[-1] == "out/deep: 4 overlays, explained.json, sheet.png"
    for name, here, there in ((names[0], GREEN, RED), (names[1], RED, GREEN)):
        assert change(work, f"out/deep/{name}", here) > 30
        assert change(work, f"out/deep/{name}", there) < 5
    unseen = (0, 0, 50, 160)
    assert change(work, f"out/deep/{names[0]}", unseen) == pytest.approx(0.6 * 255)  # black, faded


def call(work: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.chdir(work)
    monkeypatch.setattr("sys.argv", ["explain.py", *words])
    explain.main()


@pytest.mark.long
def test_models_stand_side_by_side_and_only_an_older_folder_is_overwritten(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["a/1.png", "--model", "colours.ckpt", "./colours.ckpt", "--output", "two"]
    call(work, monkeypatch, *words, "--top_k", "2", "--stage", "2")
    last = "colours.ckpt: maps of stage 2, 8 x 8 places"
    end = "two: 4 overlays, explained.json"
    assert capsys.readouterr().out.splitlines()[-3:] == [last, f"./{last}", end]
    first = {f"001_1_model{m}_{label}.png" for m in (1, 2) for label in ("0_red", "1_green")}
    assert {path.name for path in (work / "two").iterdir()} == {*first, "explained.json"}
    with pytest.raises(UserError, match="--output: two exists, expected a new folder, or --over"):
        call(work, monkeypatch, *words)
    call(work, monkeypatch, *words, "--overwrite", "--classes", "0", "4", "--sheet")
    parts = ("3_0", "4_tawny-owl-Strix-aluco")  # the class named 0, and number 4
    second = {f"001_1_model{m}_{part}.png" for m in (1, 2) for part in parts}
    found = {path.name for path in (work / "two").iterdir()}
    assert found == {*second, "explained.json", "sheet.png"}
    (work / "two" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="--output: found two to be or to hold something else"):
        call(work, monkeypatch, *words, "--overwrite")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "the following arguments are required: images"),
        (["a", "--top_k", "0"], "argument --top_k: found '0', expected an integer >= 1"),
        (["a", "--stage", "4"], "argument --stage: invalid choice: 4 (choose from 0, 1, 2, 3)"),
        (["a", "--alpha", "1.5"], "argument --alpha: found '1.5', expected a number from 0 to 1"),
        (["a", "--alpha", "nan"], "argument --alpha: found 'nan', expected a number from 0 to 1"),
        (["a", "--top_k", "2", "--classes", "red"], "found --classes and --top_k, expected one"),
    ],
)
def test_wrong_flags(
    flags: list[str], message: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(argparse.ArgumentError) as caught:
        call(work, monkeypatch, *flags)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["a", "nowhere.png"], "image nowhere.png does not exist"),
        (["a", "--output", "photos"], "--output: photos exists, expected a new folder"),
        (["a", "--output", "photos", "--overwrite"], "found photos to be or to hold something"),
        (["a", "--output", "a/1.png", "--overwrite"], "found a/1.png to be or to hold something"),
        (["a", "--output", "a/1.png/out"], "a/1.png/out: cannot be written .Not a directory"),
        (["a", "--sheet", "--top_k", "51"], "--sheet: found 51 rows, expected at most 50"),
        (["a", "--model", "bundle"], "model bundle: found a bundle, whose graph has no gradients"),
        (["a", "--model", "s12"], "model s12: found no such file or folder, expected a checkpoint"),
        (["a", "--model", "headless.ckpt"], "model headless.ckpt: found no classifier, expected"),
        (["a", "--classes", "owl"], "classes: found 'owl', expected a name .*from 0 to 4 of a"),
        (["a", "--classes", "gren"], "'gren', expected a name, such as 'green' or a number from 0"),
        (["a", "--classes", "5"], "classes: found '5', expected a name"),
        (["a", "--image_size", "34", "--stage", "3"], "stage: found 3, of whose map at 34 px one"),
        (["photos", "--output", "new"], "image photos/mine.png is not in an image format"),
    ],
)
def test_mistakes_end_in_a_line_and_write_nothing(
    flags: list[str], message: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(work.rglob("*"))
    model = [] if "--model" in flags else ["--model", "colours.ckpt"]
    with pytest.raises(UserError, match=message) as caught:
        call(work, monkeypatch, *flags, *model)
    assert "\n" not in str(caught.value)
    assert sorted(work.rglob("*")) == before


@pytest.mark.parametrize("channels", [1, 3])
def test_top_k_are_the_most_probable_of_any_network(channels: int, pynative_mode: None) -> None:
    network = PoolFormer((1,) * 4, (8,) * 4, num_classes=4, in_channels=channels)
    network.classes = ("ant", "bee", "bee", "cow")
    network.head.bias.set_data(Tensor(np.float32([1, 5, 3, 2])))
    processor = ImageProcessor(32, 1.0, mean=(0.5,) * channels, std=(0.25,) * channels)
    explainer = Explainer(network, processor=processor)
    image = processor.open(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8))
    found = explainer.explain(image, top_k=3)
    assert [(one.label, one.name) for one in found] == [(1, "bee"), (2, "bee"), (3, "cow")]
    logits = network(processor(image)).asnumpy()[0].astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum()
    assert [one.probability for one in found] == pytest.approx(list(expected[1:]), abs=1e-5)
    assert all(one.cam.shape == (4, 4) for one in found)
    assert [one.label for one in explainer.explain(image, [3, 0])] == [3, 0]
    with pytest.raises(UserError, match="found 'bee' 2 times, expected one of 1, 2"):
        explainer.label_of("bee")


def test_random_mixing_is_refused_at_another_size() -> None:
    network = mindcv.create_model("randformer_s12", num_classes=4)
    assert Explainer(network, processor=ImageProcessor(224)).places == 7
    with pytest.raises(UserError, match="image_size: found 256 with model randformer_s12,"):
        Explainer(network, processor=ImageProcessor(224), image_size=256)


def test_names_are_never_equal_and_fit_any_file_system() -> None:
    one = explain.Explanation(7, "a/b\\c: " + 200 * "字", 0.5, np.zeros((4, 4)))
    long = Path("x" * 250 + ".jpg")
    names = {explain.file_name(n, long, m, one) for n in (1, 12) for m in (0, 1, 11)}
    assert len(names) == 6
    for name in names:
        assert len(name.encode()) < 255 and "/" not in name and "\\" not in name
