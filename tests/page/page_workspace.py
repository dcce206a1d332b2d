"""The page at work on a network that tells colours, and what visitors may send it."""

from __future__ import annotations

import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import mindcv
import mindspore as ms
import psutil
from colours import tell_colours
from PIL import Image
from scripts import Running

from mindcv_poolformer.data.preprocess import EvalTransform
from mindcv_poolformer.export.choices import Choices
from mindcv_poolformer.export.mindir import Trained, write_bundle
from mindcv_poolformer.runtime.ports import free_port

CLASSES = ("red", "green", "blue", "<b>other</b>", "dark", "none")
TRANSFORM = EvalTransform(128, 1.0, "bilinear", (0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
DEMO = (sys.executable, "-m", "mindcv_poolformer.page")
RED, GREEN = (80, 16, 112, 48), (0, 80, 32, 112)  # left, top, right, bottom


def write_page_workspace(folder: Path) -> None:
    """Write a bundle, its checkpoint, examples, and images good and bad."""
    network = mindcv.create_model("poolformer_s12", num_classes=len(CLASSES))
    tell_colours(network, scale=3)
    ms.save_checkpoint(network, str(folder / "best.ckpt"))
    trained = Trained(network, "poolformer_s12", folder / "best.ckpt", TRANSFORM, CLASSES)
    image = Image.new("RGB", (128, 128))
    image.paste((250, 30, 0), RED)
    image.paste((0, 200, 30), GREEN)
    write_bundle(trained, folder / "bundle", TRANSFORM(image)[None], Choices(beside="ONNX"))
    image.save(folder / "red.png")
    wide = Image.new("RGB", (192, 128), (90, 90, 90))
    wide.paste(image, (32, 0))
    wide.save(folder / "wide.png")
    (folder / "examples").mkdir()
    for number, colour in enumerate([(0, 200, 0), (0, 0, 200), (200, 0, 0)]):
        Image.new("RGB", (160, 90), colour).save(folder / "examples" / f"{number}.jpg")
    (folder / "text.txt").write_text("no image")
    (folder / "broken.png").write_bytes((folder / "red.png").read_bytes()[:60])
    (folder / "renamed.png").write_text("no image either")
    Image.new("1", (6000, 5000)).save(folder / "huge.png")
    Image.new("1", (9000, 1)).save(folder / "ribbon.png")


@contextmanager
def page_at_work(
    folder: Path, *flags: str, command: Sequence[str] = DEMO
) -> Iterator[tuple[str, psutil.Process, Path]]:
    """Serve the page from a workspace; give its address, its process and its log."""
    port = free_port()
    words = [*command, "--bundle", "bundle", "--port", str(port), *flags]
    log, url = folder / "server.log", f"http://127.0.0.1:{port}/"
    with log.open("w") as stream:
        running = Running(folder, words, stdout=stream, stderr=stream)
    try:
        _wait_for(url, running, log)
        yield url, psutil.Process(running.process.pid), log
    finally:
        running.kill()


def _wait_for(url: str, running: Running, log: Path) -> None:
    for _ in range(240):
        assert running.process.poll() is None, log.read_text()[-3000:]
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text()[-3000:])
