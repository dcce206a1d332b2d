"""The page of a detector's bundle in a real browser."""

from __future__ import annotations

import io
import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from page_browser import PICTURES, opened, upload
from page_workspace import page_at_work
from PIL import Image
from scripts import ROOT, Running
from toy_detector import OBJECTS, ToyDetector

from mindcv_poolformer.data.detection.fitting import CanvasTransform, EvalTransform
from mindcv_poolformer.data.detection.objects import Detection, colours_of
from mindcv_poolformer.export.choices import Choices
from mindcv_poolformer.export.mindir import Trained, write_bundle
from mindcv_poolformer.page.__main__ import build
from mindcv_poolformer.runtime.errors import UserError

# isort: split
from playwright.sync_api import Browser, Page, expect

from mindcv_poolformer.page.frame import CSS
from mindcv_poolformer.page.objects import SURER, objects_over
from mindcv_poolformer.page.picture import figure

pytestmark = pytest.mark.long

CLASSES = ("disc", "<b>bar</b>", "zéro")
TRANSFORM = EvalTransform((256, 128), 32, (120.0, 115.0, 100.0), (60.0, 50.0, 55.0))
SIZE = (300, 200)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, and a picture with a sure object, a less sure one, and one below 0.3."""
    folder = tmp_path_factory.mktemp("objects")
    picture = Image.new("RGB", SIZE, (220, 120, 20))
    picture.save(folder / "picture.png")
    Image.new("1", (3_000_000, 1)).save(folder / "ribbon.png")
    path = folder / "best.ckpt"
    path.write_bytes(b"")
    trained = Trained(ToyDetector(), "toy", path, TRANSFORM, CLASSES, objects=OBJECTS)
    image, size = CanvasTransform.of(TRANSFORM, (128, 192))(np.asarray(picture))
    inputs = image[None], np.array([size], np.int32)
    write_bundle(trained, folder / "bundle", inputs, Choices(deploy=False))
    return folder


@pytest.fixture(scope="module")
def address(workspace: Path) -> Iterator[str]:
    """Of the page."""
    with page_at_work(workspace) as (url, _, log):
        yield url
        assert "Traceback" not in log.read_text()


def seen_rows(page: Page) -> list[list[str]]:
    """Class, score and box of each row that is to be seen."""
    rows = page.get_by_role("table", name="Objects").get_by_role("row").all()[1:]
    return [row.get_by_role("cell").all_inner_texts()[1:] for row in rows]


def test_objects_are_those_of_predict(browser: Browser, address: str, workspace: Path) -> None:
    words = [sys.executable, str(ROOT / "predict.py"), "picture.png", "--bundle", "bundle"]
    ended = Running(workspace, [*words, "--json", "--threshold", "0"]).finish()
    assert ended.code == 0, ended.err
    told = json.loads(ended.out)[0]["objects"]
    expected = [
        [one["class"], f"{one['score']:.2f}", " ".join(f"{x:.0f}" for x in one["box"])]
        for one in told
    ]
    assert [one["score"] > 0.3 for one in told] == [True, True, False]
    with browser.new_context(viewport={"width": 1100, "height": 1000}) as context:
        page = context.new_page()
        with opened(page, address):
            upload(page, workspace / "picture.png")
            boxes = page.locator("#seen .box:visible")
            expect(boxes).to_have_count(2)
            assert seen_rows(page) == expected[:2]
            captions = [f"{name} {score}" for name, score, _ in expected[1::-1]]
            assert boxes.all_inner_texts() == captions  # the surest is on top
            place = page.locator("#seen img").bounding_box()
            factor = place["width"] / SIZE[0]
            for box, one in zip(boxes.all(), told[1::-1], strict=True):
                x1, y1, x2, y2 = np.array(one["box"]) * factor
                found = [box.bounding_box()[name] for name in ("x", "y", "width", "height")]
                wanted = [place["x"] + x1, place["y"] + y1, x2 - x1, y2 - y1]
                assert found == pytest.approx(wanted, abs=1)
            expect(page.locator("#status")).to_contain_text("; objects with scores above 0.05: 3.")
            PICTURES.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=PICTURES / "objects.png", full_page=True)
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            slider = page.get_by_role("slider")
            slider.focus()
            for key, count in (("Home", 3), ("End", 0), ("Home", 3)):
                page.keyboard.press(key)
                expect(boxes).to_have_count(count)
                assert seen_rows(page) == expected[:count]
            assert asked == []  # the browser does it alone
            upload(page, workspace / "ribbon.png")
            alert = page.locator("#status [role=alert]")
            expect(alert).to_contain_text("found 3000000 x 1 pixels, expected edges of at most")
            expect(page.locator("#seen img")).to_have_count(0)
            upload(page, workspace / "picture.png")
            expect(boxes).to_have_count(3)  # by the threshold as it stands


def test_masks_lie_where_the_overlay_has_them(browser: Browser) -> None:
    classes = ("disc", "bar")
    boxes = np.array([[30, 40, 200, 160], [120, 30, 280, 190], [0, 0, 9, 9]], np.float32)
    rows, columns = np.mgrid[:200, :300]
    disc = (rows - 100) ** 2 + (columns - 115) ** 2 < 58**2
    bar = (abs(rows + columns - 310) < 30) & (columns > 121) & (rows < 188)
    masks = np.stack([disc, bar, np.zeros_like(disc)])
    scores, labels = np.float32([0.9, 0.8, 0.1]), np.int32([0, 1, 0])
    told = classes, colours_of(classes)
    found = Detection(boxes, scores, labels, *told, masks)
    picture = Image.linear_gradient("L").resize(SIZE).convert("RGB")
    above = objects_over(found, SIZE)
    content = f"<style>{CSS} .seen {{ width: 300px }}</style>{figure(picture, above)}"
    with browser.new_context() as context:
        page = context.new_page()
        page.set_content(content)
        page.evaluate(f"({SURER.follow})(0.3)")
        seen = page.locator("figure").screenshot()
        assert page.locator(".object:visible").count() == 2
    shown = np.asarray(Image.open(io.BytesIO(seen)).convert("RGB"), float)
    expected = np.asarray(
        Detection(boxes[:2], scores[:2], labels[:2], *told, masks[:2]).overlay(picture), float
    )
    inside = np.zeros(SIZE[::-1], bool)
    inside[66:155, 36:112] = True  # of boxes, without frames and captions
    inside[66:155, 208:275] = True
    assert shown.shape == expected.shape and inside[masks.any(0)].mean() > 0.3
    off = abs(shown - expected).max(2) > 16  # the picture is sent as WebP
    assert off[inside].mean() < 0.001
    assert (abs(np.asarray(picture, float) - expected).max(2) > 16)[inside & masks.any(0)].all()


def test_a_checkpoint_is_of_no_use(workspace: Path) -> None:
    given = {"bundle": workspace / "bundle", "ckpt_path": "best.ckpt", "runtime": "auto"}
    arguments = Namespace(**given, device_target="CPU", dec_key_file=None)
    with pytest.raises(UserError, match="^--ckpt_path: found best.ckpt with .* of detection, exp"):
        build(arguments, [])
