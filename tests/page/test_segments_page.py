"""The page of a segmenter's bundle in a real browser."""

from __future__ import annotations

import io
import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from page_browser import PICTURES, opened, upload
from page_workspace import DEMO, page_at_work
from PIL import Image
from scripts import ROOT, Running
from toy_segmenter import ToySegmenter

from mindcv_poolformer.data.segmentation.fitting import EvalTransform
from mindcv_poolformer.data.segmentation.labelling import Labelling
from mindcv_poolformer.data.segmentation.stretch import StretchTransform
from mindcv_poolformer.export.choices import Choices
from mindcv_poolformer.export.mindir import Trained, write_bundle

# isort: split
from playwright.sync_api import Browser, Locator, expect

pytestmark = pytest.mark.long

CLASSES = ("sky", "sea", "sand", "<b>boat</b>", "bird")
PALETTE = ((10, 20, 200), (40, 150, 160), (230, 200, 90), (200, 110, 20), (255, 0, 128))
TRANSFORM = EvalTransform((256, 128), 32, (120.0, 115.0, 100.0), (60.0, 50.0, 55.0))
SIZE = (300, 200)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle and a picture."""
    folder = tmp_path_factory.mktemp("segments")
    coarse = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC)
    picture.save(folder / "picture.png")
    Image.new("1", (300_000, 1)).save(folder / "line.png")
    (folder / "best.ckpt").write_bytes(b"")
    labelling = Labelling(PALETTE)
    trained = Trained(ToySegmenter(), "toy", folder / "best.ckpt", TRANSFORM, CLASSES, labelling)
    inputs = StretchTransform.of(TRANSFORM, (128, 192))(picture)[None]
    write_bundle(trained, folder / "bundle", inputs, Choices(deploy=False))
    return folder


@pytest.fixture(scope="module")
def address(workspace: Path) -> Iterator[str]:
    """Of the page."""
    with page_at_work(workspace) as (url, _, log):
        yield url
        assert "Traceback" not in log.read_text()


def pixels(image: Locator) -> np.ndarray:
    with urllib.request.urlopen(image.get_attribute("src"), timeout=20) as answer:
        return np.asarray(Image.open(io.BytesIO(answer.read())).convert("RGB"))


def test_colours_and_legend_are_those_of_predict(
    browser: Browser, address: str, workspace: Path
) -> None:
    words = [sys.executable, str(ROOT / "predict.py"), "picture.png", "--bundle", "bundle"]
    ended = Running(workspace, [*words, "--json"]).finish()
    assert ended.code == 0, ended.err
    (told,) = json.loads(ended.out)
    labels = np.asarray(Image.open(workspace / told["files"]["labels"]))
    with browser.new_context(viewport={"width": 1100, "height": 1000}) as context:
        page = context.new_page()
        with opened(page, address):
            upload(page, workspace / "picture.png")
            below, above = page.locator("#seen img").nth(0), page.locator("#seen img").nth(1)
            expect(above).to_be_visible()
            np.testing.assert_array_equal(pixels(above), np.array(PALETTE, np.uint8)[labels])
            picture = np.asarray(Image.open(workspace / "picture.png"), float)
            assert abs(pixels(below) - picture).mean() < 4  # sent as WebP
            rows = page.get_by_role("table", name="Classes").get_by_role("row").all()
            expected = [[one["class"], f"{one['share']:.1%}"] for one in told["classes"]]
            assert [row.get_by_role("cell").all_inner_texts()[1:] for row in rows] == expected
            assert len(expected) == 5
            swatch = page.locator("#legend i").first
            red, green, blue = PALETTE[told["classes"][0]["index"]]
            expect(swatch).to_have_css("background-color", f"rgb({red}, {green}, {blue})")
            assert below.bounding_box() == above.bounding_box()
            expect(above).to_have_css("opacity", "0.5")
            PICTURES.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=PICTURES / "segments.png", full_page=True)
            slider = page.get_by_role("slider")
            slider.focus()
            page.keyboard.press("ArrowRight")
            expect(above).to_have_css("opacity", "0.55")
            page.get_by_label("Remove Image").or_(page.get_by_label("Clear")).first.click()
            expect(page.locator("#status")).to_contain_text("Drop an image")
            expect(page.locator("#seen img")).to_have_count(0)
            upload(page, workspace / "line.png")
            alert = page.locator("#status [role=alert]")
            expect(alert).to_contain_text("300,000 x 1 pixels, and 57,600,000 once resized; at")
            expect(page.locator("#legend td")).to_have_count(0)


def test_a_checkpoint_is_of_no_use(workspace: Path) -> None:
    words = [*DEMO, "--bundle", "bundle", "--ckpt_path", "best.ckpt"]
    ended = Running(workspace, words).finish()
    assert ended.code == 1
    (line,) = [line for line in ended.err.splitlines() if "WARNING" not in line]
    assert line.startswith(
        "error: --ckpt_path: found best.ckpt with bundle, a bundle of segmentation"
    )
