"""The command ``python -m mindcv_poolformer.data``."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from pathlib import Path

import forked
import pytest
from PIL import Image
from scripts import ROOT, Ended, Running, run_on_terminal, write_images

PICTURES = 33  # all but those that are spoilt; more than one worker takes at once


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def words(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "mindcv_poolformer.data", "check", *map(str, arguments)]


def check(folder: Path, *arguments: str) -> Ended:
    return forked.call(folder, words(*arguments)[1:])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set of two splits, all of it in order."""
    write_images(tmp_path / "data" / "train", per_class=8)
    write_images(tmp_path / "data" / "val", per_class=3)
    (tmp_path / "data" / "train" / "class0" / "notes.txt").touch()
    return tmp_path / "data"


def spoil(data: Path) -> dict[str, str]:
    """Damage a file in every way; give the beginning of what must be said of each."""
    jpeg = data / "train" / "class0" / "cut.JPEG"
    Image.new("RGB", (64, 64)).save(jpeg)
    jpeg.write_bytes(jpeg.read_bytes()[:-60])
    (data / "train" / "class1" / "text.jpg").write_text("no image")
    (data / "train" / "class1" / "zero.webp").touch()
    (data / "val" / "class2" / "lost.png").symlink_to("nowhere.png")
    Image.new("1", (13_400, 13_400)).save(data / "val" / "class2" / "bomb.png")
    Image.new("F", (8, 8)).save(data / "val" / "class2" / "float.tif")
    return {
        "data/train/class0/cut.JPEG": "cannot be read: image file is truncated",
        "data/train/class1/text.jpg": "is not in an image format that Pillow reads",
        "data/train/class1/zero.webp": "is an empty file",
        "data/val/class2/bomb.png": "cannot be read: Image size (179560000 pixels) exceeds limit",
        "data/val/class2/float.tif": "cannot be read: found 32-bit pixels (mode F)",
        "data/val/class2/lost.png": "does not exist",
    }


@pytest.mark.parametrize("workers", ["3", pytest.param("1", marks=pytest.mark.long)])
def test_every_corrupt_image_is_listed(data: Path, workers: str) -> None:
    spoilt = spoil(data)
    (data / "train" / "LICENSE").touch()
    ended = check(data.parent, "data", "--workers", workers)
    *lines, summary = ended.out.splitlines()
    found = dict(line.split("\t") for line in lines)
    assert list(found) == list(spoilt)
    for path, said in spoilt.items():
        assert found[path].startswith(said)
    assert summary == (
        f"data: 6 of {PICTURES + 6} images cannot be read, 2 files with other endings ignored"
    )
    assert (ended.code, ended.err) == (1, "")


def test_a_sound_data_set_ends_with_zero_and_without_warnings(data: Path) -> None:
    for number in range(3):  # 90 to 92 megapixels, of which Pillow warns
        Image.new("1", (9_500, 9_500 + 100 * number)).save(data / "train" / f"large{number}.png")
    ended = check(data.parent, "data")
    assert ended.out == (
        f"data: 0 of {PICTURES + 3} images cannot be read, 1 file with other endings ignored\n"
    )
    assert (ended.code, ended.err) == (0, "")


def test_an_image_without_permission(data: Path) -> None:
    (data / "val" / "class0" / "00.png").chmod(0)
    (data / "train" / "class0" / "notes.txt").unlink()
    unprivileged: list[str] = []
    if os.geteuid() == 0:  # whom no permission stops but by these means
        if not shutil.which("setpriv"):
            pytest.skip("root may read everything, and there is no setpriv")
        unprivileged = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    ended = Running(data.parent, [*unprivileged, *words("data")]).finish()
    assert ended.out == (
        "data/val/class0/00.png\tcannot be read: [Errno 13] Permission denied: "
        f"'data/val/class0/00.png'\ndata: 1 of {PICTURES} images cannot be read\n"
    )
    (data / "val" / "class0").chmod(0)
    ended = Running(data.parent, [*unprivileged, *words("data")]).finish()
    (data / "val" / "class0").chmod(0o755)
    assert ended.err == "error: folder data/val/class0 cannot be read: Permission denied\n"
    assert (ended.code, ended.out) == (1, "")


def test_a_name_of_any_bytes(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / os.fsdecode(b"\xff.png")).touch()
    with (tmp_path / "out").open("wb") as out:
        ended = Running(tmp_path, words("data"), stdout=out).finish()
    assert (tmp_path / "out").read_bytes().startswith(b"data/\xff.png\tis an empty file\n")
    assert (ended.code, ended.err) == (1, "")


def test_a_terminal_shows_a_bar_and_the_list_above_it(data: Path) -> None:
    spoil(data)
    screen, code = run_on_terminal(data.parent, words("data"))
    assert code == 1
    assert re.search(rf"checking: 100%\|█+\| {PICTURES + 6}/{PICTURES + 6} ", screen)
    assert "\rdata/train/class1/zero.webp\tis an empty file\r\n" in screen
    assert screen.splitlines()[-1].startswith("data: 6 of 39 images cannot be read")


def begin_long_work(folder: Path, large_images: int) -> Running:
    """Start a check by two workers, of which one has told of its images already."""
    (folder / "data").mkdir()
    for number in range(16):
        (folder / "data" / f"a{number:02d}.png").touch()
    Image.new("1", (13_000, 13_000)).save(folder / "large.png")
    for number in range(large_images):
        (folder / "data" / f"z{number}.png").symlink_to("../large.png")
    running = Running(folder, words("data", "--workers", "2"))
    assert running.process.stdout.readline() == "data/a00.png\tis an empty file\n"
    return running


@pytest.mark.long
def test_ctrl_c_on_a_terminal(tmp_path: Path) -> None:
    """It reaches every process, a worker without work, too."""
    running = begin_long_work(tmp_path, large_images=16)
    os.killpg(running.process.pid, signal.SIGINT)
    ended = running.finish(within=30)
    assert (ended.code, ended.err) == (130, "interrupted\n")
    assert "images cannot be read" not in ended.out


@pytest.mark.long
def test_a_signal_to_the_main_process_ends_its_workers(tmp_path: Path) -> None:
    running = begin_long_work(tmp_path, large_images=200)  # minutes
    running.process.send_signal(signal.SIGINT)
    ended = running.finish(within=30)
    assert (ended.code, ended.err) == (130, "interrupted\n")


@pytest.mark.long
def test_a_worker_that_dies_is_told(tmp_path: Path) -> None:
    running = begin_long_work(tmp_path, large_images=200)
    children = Path(f"/proc/{running.process.pid}/task").glob("*/children")
    workers = [int(pid) for file in children for pid in file.read_text().split()]
    os.kill(workers[-1], signal.SIGKILL)
    ended = running.finish(within=60)
    assert ended.code == 1
    assert ended.err == (
        "error: workers: found one of 2 killed, expected them to live: with too little memory "
        "give a smaller --workers\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nowhere"], 1, "error: nowhere: found no such folder, expected a folder of images\n"),
        (["file.png"], 1, "error: file.png: found a file, expected a folder of images\n"),
        (["empty"], 1, "error: empty: found no image in the folder, expected .jpg .jpeg .png "),
        (["empty", "--workers", "0"], 2, "error: argument --workers: found '0', expected an int"),
        ([], 2, "error: the following arguments are required: DIR\n"),
    ],
)
def test_errors_take_one_line(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    (tmp_path / "file.png").touch()
    ended = check(tmp_path, *arguments)
    assert ended.err.startswith(said) and ended.err.count("\n") == 1
    assert (ended.code, ended.out) == (code, "")
