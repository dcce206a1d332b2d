"""The page in a real browser: Debian's Chromium without a window, driven by Playwright."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import os
import re
import shutil
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import mindcv
import mindspore as ms
import numpy as np
import psutil
import pytest
from colours import tell_colours
from PIL import Image
from scripts import ROOT, Running

from mindcv_poolformer.data.preprocess import EvalTransform
from mindcv_poolformer.export.mindir import Trained, write_bundle

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
MISSING = [name for name in ("gradio", "playwright") if importlib.util.find_spec(name) is None]
if not BROWSER:
    MISSING.append("chromium")
if MISSING:
    REASON = f"needs {', '.join(MISSING)}: the extra demo and a Chromium of the system"
    if os.environ.get("PAGE") == "required":  # as make test-page does
        pytest.fail(REASON, pytrace=False)
    pytest.skip(REASON, allow_module_level=True)

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright  # noqa: E402

pytestmark = pytest.mark.long

CLASSES = ("red", "green", "blue", "<b>other</b>", "dark", "none")
TRANSFORM = EvalTransform(128, 1.0, "bilinear", (0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
RED, GREEN = (80, 16, 112, 48), (0, 80, 32, 112)  # left, top, right, bottom
PICTURES = ROOT / "runs" / "page"  # screenshots, for people to look at
DEMO = (sys.executable, "-m", "mindcv_poolformer.serving.demo")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a network that tells colours, its checkpoint, examples, and odd files."""
    folder = tmp_path_factory.mktemp("page")
    network = mindcv.create_model("poolformer_s12", num_classes=len(CLASSES))
    tell_colours(network, scale=3)
    ms.save_checkpoint(network, str(folder / "best.ckpt"))
    trained = Trained(network, "poolformer_s12", folder / "best.ckpt", TRANSFORM, CLASSES)
    image = Image.new("RGB", (128, 128))
    image.paste((250, 30, 0), RED)
    image.paste((0, 200, 30), GREEN)
    write_bundle(trained, folder / "bundle", TRANSFORM(image)[None])
    image.save(folder / "red.png")
    (folder / "examples").mkdir()
    for number, colour in enumerate([(0, 200, 0), (0, 0, 200), (200, 0, 0)]):
        Image.new("RGB", (160, 90), colour).save(folder / "examples" / f"{number}.jpg")
    (folder / "text.txt").write_text("no image")
    (folder / "broken.png").write_bytes((folder / "red.png").read_bytes()[:60])
    (folder / "renamed.png").write_text("no image either")
    Image.new("1", (6000, 5000)).save(folder / "huge.png")
    Image.new("1", (9000, 1)).save(folder / "ribbon.png")
    return folder


@pytest.fixture(scope="module")
def address(workspace: Path) -> Iterator[str]:
    """Of the page."""
    port = _free_port()
    words = [*DEMO, "--bundle", "bundle", "--ckpt_path", "best.ckpt"]
    words += ["--examples", "examples", "--port", str(port)]
    log = workspace / "server.log"
    with log.open("w") as stream:
        running = Running(workspace, words, stdout=stream, stderr=stream)
    try:
        _wait_for(f"http://127.0.0.1:{port}/", running, log)
        listening = {
            connection.laddr.ip
            for connection in psutil.Process(running.process.pid).net_connections()
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}
        yield f"http://127.0.0.1:{port}/"
        assert "Traceback" not in log.read_text()
    finally:
        running.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's has no use for root
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=BROWSER, args=flags)
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page, freshly opened. It asks no other host for anything, and reports no error."""
    with browser.new_context(viewport={"width": 1100, "height": 1000}) as context:
        one = context.new_page()
        with opened(one, address):
            yield one


@contextmanager
def opened(page: Page, address: str) -> Iterator[None]:
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.set_default_timeout(30_000)
    expect.set_options(timeout=30_000)
    page.goto(address)
    expect(page.locator("#status")).to_contain_text("Drop an image")
    yield
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert errors == []


def upload(page: Page, path: Path) -> None:
    page.locator("#image input[type=file]").set_input_files(path)


def bars(page: Page) -> dict[str, float]:
    """The probability of each class that the page shows."""
    pairs = "meters => meters.map(meter => [meter.getAttribute('aria-label'), meter.value])"
    return dict(page.locator("#bars meter").evaluate_all(pairs))


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


def test_the_overlay_lights_up_the_class_that_is_chosen(page: Page, workspace: Path) -> None:
    upload(page, workspace / "red.png")
    expect(page.locator("#cam")).to_contain_text("Grad-CAM for red")
    plain = Image.open(workspace / "red.png").resize((448, 448), Image.Resampling.BICUBIC)

    def change(box: tuple[int, int, int, int]) -> float:
        left, top, right, bottom = (edge * 448 // 128 for edge in box)
        changed = abs(picture(page.locator("#cam")) - np.asarray(plain))
        return changed[top:bottom, left:right].mean()

    assert change(RED) > 2 * change(GREEN)
    page.locator("#bars button", has_text="green").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#cam")).to_contain_text("Grad-CAM for green")
    assert change(GREEN) > 2 * change(RED)


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


def test_an_image_can_be_pasted(page: Page, workspace: Path, address: str) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
    page.evaluate(
        """async content => {
            const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
            const item = new ClipboardItem({"image/png": new Blob([bytes], {type: "image/png"})});
            await navigator.clipboard.write([item]);
        }""",
        base64.b64encode((workspace / "red.png").read_bytes()).decode(),
    )
    page.get_by_label("Paste from clipboard").click()
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


def _free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as one:
        return one.getsockname()[1]


def _wait_for(url: str, running: Running, log: Path) -> None:
    for _ in range(240):
        assert running.process.poll() is None, log.read_text()[-3000:]
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text()[-3000:])
