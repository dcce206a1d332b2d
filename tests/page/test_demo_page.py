"""The page in a real browser: Debian's Chromium without a window, driven by Playwright."""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path

import numpy as np
import psutil
import pytest
from page_browser import PICTURES, opened, upload
from page_workspace import CLASSES, DEMO, GREEN, RED, TRANSFORM, page_at_work, write_page_workspace
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect
from scripts import ROOT, Running
from without_mindspore import PYTHON, without_mindspore

from mindcv_poolformer.data.processor import ImageProcessor
from mindcv_poolformer.explaining.explanation import Explainer
from mindcv_poolformer.explaining.overlay import as_picture

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a network that tells colours, its checkpoint, examples, and odd files."""
    folder = tmp_path_factory.mktemp("page")
    write_page_workspace(folder)
    return folder


@pytest.fixture(scope="module")
def address(workspace: Path) -> Iterator[str]:
    """Of the page."""
    flags = ["--ckpt_path", "best.ckpt", "--examples", "examples"]
    with page_at_work(workspace, *flags) as (url, process, log):
        listening = {
            connection.laddr.ip
            for connection in process.net_connections()
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}
        yield url
        assert "Traceback" not in log.read_text()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page, freshly opened. It asks no other host for anything, and reports no error."""
    with browser.new_context(viewport={"width": 1100, "height": 1000}) as context:
        one = context.new_page()
        with opened(one, address):
            yield one


def bars(page: Page) -> dict[str, float]:
    """The probability of each class that the page shows."""
    pairs = "meters => meters.map(meter => [meter.getAttribute('aria-label'), meter.value])"
    return dict(page.locator("#bars meter").evaluate_all(pairs))


@cache
def predicted(workspace: Path, image: str) -> dict[str, float]:
    """What predict.py says."""
    words = [sys.executable, str(ROOT / "predict.py"), image, "--bundle", "bundle", "--json"]
    ended = Running(workspace, words).finish()
    assert ended.code == 0, ended.err
    (result,) = json.loads(ended.out)
    return {row["class"]: row["probability"] for row in result["predictions"]}


def picture(place: Locator) -> np.ndarray:
    """The pixels of the image in a part of the page."""
    source = place.locator("img").get_attribute("src")
    with urllib.request.urlopen(source, timeout=20) as answer:
        return np.asarray(Image.open(io.BytesIO(answer.read())).convert("RGB")).astype(float)


def data_url(png: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(png.read_bytes()).decode()}"


def test_an_upload_is_answered_as_by_predict(page: Page, workspace: Path) -> None:
    upload(page, workspace / "red.png")
    status = page.locator("#status [role=status]")
    expect(status).to_have_text(re.compile(r"^Answered in [\d.]+ ms by the network, after [\d.]+"))
    found, expected = bars(page), predicted(workspace, "red.png")
    assert list(found) == list(expected) and len(found) == 5
    assert list(found)[0] == "red"
    assert found == pytest.approx(expected, abs=1e-5)
    expect(page.locator("#cam")).to_contain_text("Grad-CAM for red: 4 × 4 places")
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / "desktop.png", full_page=True)


def test_the_overlay_is_that_of_the_class_that_is_chosen(
    page: Page, workspace: Path, pynative_mode: None
) -> None:
    """As explain.py draws it, also of what lies outside of the square that the network sees."""
    processor = ImageProcessor.from_transform(TRANSFORM)
    explainer = Explainer(workspace / "best.ckpt", processor=processor)
    image = processor.open(workspace / "wide.png")
    plain = np.asarray(as_picture(image), float)

    def check(label: int, lit: tuple[int, int, int, int], unlit: tuple[int, int, int, int]) -> None:
        expect(page.locator("#cam")).to_contain_text(f"Grad-CAM for {CLASSES[label]}")
        found = picture(page.locator("#cam"))
        (one,) = explainer.explain(image, [label])
        assert abs(found - explainer.overlay(as_picture(image), one)).mean() < 1  # sent as WebP
        means = []
        for box in (lit, unlit):
            left, top, right, bottom = (edge * 512 // 192 for edge in box)
            means.append(abs(found - plain)[top:bottom, left + 85 : right + 85].mean())
        assert means[0] > 2 * means[1]

    upload(page, workspace / "wide.png")
    check(0, RED, GREEN)
    page.locator("#bars button", has_text="green").focus()
    page.keyboard.press("Enter")
    check(1, GREEN, RED)


@pytest.mark.parametrize(
    "name, words",
    [
        ("renamed.png", "This is not an image in one of the formats JPEG, PNG"),
        ("broken.png", "The image cannot be read: "),
        ("huge.png", "6,000 x 5,000 = 30,000,000 pixels; at most 25,000,000 are taken."),
        ("ribbon.png", "9,000 x 1 pixels, and 147,456,000 once resized; at most 25,000,000"),
    ],
)
def test_a_bad_file_is_told_in_words(page: Page, workspace: Path, name: str, words: str) -> None:
    upload(page, workspace / "red.png")
    expect(page.locator("#bars meter")).to_have_count(5)
    page.get_by_label("Remove Image").or_(page.get_by_label("Clear")).first.click()
    expect(page.locator("#status")).to_contain_text("Drop an image")
    upload(page, workspace / name)
    expect(page.locator("#status [role=alert]")).to_contain_text(words)
    expect(page.locator("#bars meter")).to_have_count(0)
    expect(page.locator("#cam img")).to_have_count(0)
    page.screenshot(path=PICTURES / f"{name}.png")


def test_a_file_that_is_no_image_is_refused_by_the_browser(page: Page, workspace: Path) -> None:
    upload(page, workspace / "text.txt")
    expect(page.get_by_text("Invalid file type: text.txt")).to_be_visible()


def test_an_example_can_be_picked_with_the_keyboard_alone(page: Page, workspace: Path) -> None:
    wanted = {"Drop an image file here to upload", "Example 1", "Example 2", "Example 3"}
    expect(page.get_by_role("button", name="Example 3")).to_be_visible()
    seen = set()
    for _ in range(12):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.getAttribute('aria-label')")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none"
        seen.add(name)
        if name == "Example 2":
            page.keyboard.press("Enter")
            break
    assert wanted - {"Example 3"} <= seen
    expect(page.locator("#cam")).to_contain_text("Grad-CAM for blue")
    assert bars(page) == pytest.approx(predicted(workspace, "examples/1.jpg"), abs=1e-5)


def test_an_image_can_be_dropped(page: Page, workspace: Path) -> None:
    dropped = page.evaluate_handle(
        """async url => {
            const blob = await (await fetch(url)).blob(), held = new DataTransfer();
            held.items.add(new File([blob], "red.png", {type: blob.type}));
            return held;
        }""",
        data_url(workspace / "red.png"),
    )
    place = page.get_by_role("button", name="Drop an image file here to upload")
    for happens in ("dragenter", "dragover", "drop"):
        place.dispatch_event(happens, {"dataTransfer": dropped})
    expect(page.locator("#cam")).to_contain_text("Grad-CAM for red")
    assert bars(page) == pytest.approx(predicted(workspace, "red.png"), abs=1e-5)


@pytest.mark.parametrize("how", ["button", "keys"])
def test_an_image_can_be_pasted(page: Page, workspace: Path, address: str, how: str) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
    page.evaluate(
        """async url => {
            const blob = await (await fetch(url)).blob();
            await navigator.clipboard.write([new ClipboardItem({[blob.type]: blob})]);
        }""",
        data_url(workspace / "red.png"),
    )
    if how == "button":
        page.get_by_label("Paste from clipboard").click()
    else:
        upload(page, workspace / "examples" / "0.jpg")  # which gives way
        expect(page.locator("#cam")).to_contain_text("Grad-CAM for green")
        page.keyboard.press("Control+V")
    expect(page.locator("#cam")).to_contain_text("Grad-CAM for red")
    assert bars(page) == pytest.approx(predicted(workspace, "red.png"), abs=1e-5)


def test_a_phone_shows_all_of_it_without_scrolling_sideways(
    browser: Browser, address: str, workspace: Path
) -> None:
    phone = {"width": 390, "height": 844}
    with browser.new_context(viewport=phone, is_mobile=True, has_touch=True) as context:
        page = context.new_page()
        with opened(page, address):
            upload(page, workspace / "red.png")
            expect(page.locator("#cam")).to_contain_text("Grad-CAM for red")
            assert page.evaluate("document.documentElement.scrollWidth") <= phone["width"]
            for part in ("#image", "#status", "#bars", "#cam"):
                box = page.locator(part).bounding_box()
                assert box["x"] >= 0 and 250 < box["width"] <= phone["width"] - box["x"]
            page.screenshot(path=PICTURES / "phone.png", full_page=True)


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--ckpt_path", "other.ckpt"], "other.ckpt: found another checkpoint than the one"),
        (["--ckpt_path", "none.ckpt"], "none.ckpt: found no such file"),
        (["--examples", "nowhere"], "--examples nowhere: found no such folder"),
        (["--bundle", "examples"], "model.json"),
        (["--port", "taken"], "127.0.0.1:{taken}: cannot listen there"),
    ],
)
def test_a_mistake_is_one_line(workspace: Path, flags: list[str], words: str) -> None:
    (workspace / "other.ckpt").write_bytes(b"another")
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        flags = [port if flag == "taken" else flag for flag in flags]
        ended = Running(workspace, [*DEMO, "--bundle", "bundle", *flags]).finish()
    assert ended.code == 1
    (line,) = [line for line in ended.err.splitlines() if "WARNING" not in line]
    assert line.startswith("error: ") and words.format(taken=port) in line


def test_without_mindspore(browser: Browser, workspace: Path, tmp_path: Path) -> None:
    variables = without_mindspore(tmp_path / "packages", "demo")
    given = [f"{name}={value}" for name, value in variables.items()]
    command = ["env", *given, *PYTHON, *DEMO[1:]]
    with page_at_work(workspace, command=command) as (address, _, _):
        with urllib.request.urlopen(address, timeout=20) as answer:
            assert (
                "6 classes, images of 128 × 128 pixels, fp32, in ONNX Run" in answer.read().decode()
            )
        with browser.new_context() as context:
            page = context.new_page()
            with opened(page, address):
                upload(page, workspace / "red.png")
                expect(page.locator("#bars meter")).to_have_count(5)
                assert bars(page) == pytest.approx(predicted(workspace, "red.png"), abs=1e-5)
