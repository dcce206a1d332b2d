"""Overlays and sheets, against formulas and places known beforehand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindcv_poolformer.data.preprocess import EvalTransform
from mindcv_poolformer.explaining.overlay import SheetRow, as_picture, draw_sheet, overlay, seen_box

GREY = (40, 100, 200)
TOP, MIDDLE = (240, 249, 33), (204, 72, 120)  # matplotlib's plasma at 1 and at 0.5


def transform(size: int, crop_pct: float) -> EvalTransform:
    return EvalTransform(size, crop_pct, "bicubic", (0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize(
    ("width", "height", "crop_pct"),
    [(240, 160, 0.8), (100, 250, 0.9), (250, 250, 0.5), (250, 20, 1.0)],
)
def test_the_box_is_where_the_transform_cuts(width: int, height: int, crop_pct: float) -> None:
    rows, columns = np.mgrid[:height, :width]
    where = np.stack([columns, rows, rows], 2).astype(np.uint8)  # each pixel tells its place
    cut = transform(64, crop_pct)(Image.fromarray(where))
    left, top, right, bottom = seen_box((width, height), transform(64, crop_pct))
    pixel = min(width, height) / (64 / crop_pct)
    middle = slice(16, 48)  # bicubic blurs the ends of a ramp
    places = np.arange(64)[middle] + 0.5
    for found, begin, end in ((cut[0, 32], left, right), (cut[1, :, 32], top, bottom)):
        expected = begin + places * (end - begin) / 64 - 0.5
        assert abs(found[middle] - expected).max() < 1.1 + pixel / 2


def test_a_thin_image_still_has_a_box() -> None:
    assert as_picture(Image.new("L", (9000, 2))).size == (512, 1)
    left, top, right, bottom = seen_box((512, 1), transform(32, 0.8))
    assert (top, bottom) == (0, 1) and 0 < left < right < 512


def test_pixels_are_the_formula() -> None:
    picture = Image.new("RGB", (200, 100), GREY)
    cam = np.full((8, 8), 3.0, np.float32)
    cam[4:] = 1.5  # half of the peak
    drawn = np.asarray(overlay(picture, cam, 4, transform(32, 0.8), alpha=0.6)).astype(int)
    assert drawn.shape == (100, 200, 3)
    grey = np.array(GREY)
    left, top, right, bottom = seen_box((200, 100), transform(32, 0.8))
    assert (left, top, right, bottom) == (60, 10, 140, 90)
    for pixel, expected in [
        (drawn[0, 0], 0.4 * grey + 0.6 * 255),
        (drawn[top - 1, 100], 0.4 * grey + 0.6 * 255),
        (drawn[50, right], 0.4 * grey + 0.6 * 255),
        (drawn[top, left], 0.4 * grey + 0.6 * np.array(TOP)),
        (drawn[20, 100], 0.4 * grey + 0.6 * np.array(TOP)),
        (drawn[bottom - 1, right - 1], 0.7 * grey + 0.3 * np.array(MIDDLE)),
    ]:
        assert abs(pixel - expected).max() <= 1


def test_a_map_of_nothing_leaves_the_picture_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)
    cam = np.zeros((7, 7), np.float32)
    drawn = overlay(Image.fromarray(pixels), cam, 32, transform(224, 1.0))
    assert np.array_equal(np.asarray(drawn), pixels)


def test_the_sheet_has_each_picture_in_its_place(tmp_path: Path) -> None:
    colours = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200), "pink": (200, 0, 200)}
    flat = {name: Image.new("RGB", (90, 60), colour) for name, colour in colours.items()}
    rows = [
        SheetRow("1.png", flat["red"], [("$x_ 90 %", flat["green"]), None]),
        SheetRow("\udcff.png", flat["blue"], [None, ("long " * 40, flat["pink"])]),
    ]
    draw_sheet(["runs/a/best.ckpt", "b"], rows, tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    middles = {}
    for name, colour in colours.items():
        found = np.argwhere((sheet == colour).all(2))
        height, width = np.ptp(found, axis=0) + 1
        assert len(found) == height * width and width / height == pytest.approx(1.5, abs=0.02)
        middles[name] = found.mean(0)
    for left, right in (("red", "green"), ("blue", "pink")):
        assert middles[left][0] == pytest.approx(middles[right][0], abs=1)
        assert middles[left][1] < middles[right][1]
    assert middles["red"][1] == pytest.approx(middles["blue"][1], abs=1)
    assert middles["red"][0] < middles["blue"][0] and middles["green"][1] < middles["pink"][1]
