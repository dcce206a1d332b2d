"""What the page does to images and names, without a browser."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mindcv_poolformer.data.pixels import resized_pixels
from mindcv_poolformer.data.preprocess import EvalTransform
from mindcv_poolformer.page.__main__ import parse_arguments
from mindcv_poolformer.page.image import read_image
from mindcv_poolformer.page.model import PageModel, load_page_model
from mindcv_poolformer.runtime.errors import UserError


def resized(width: int, height: int, image_size: int = 32) -> int:
    transform = EvalTransform(image_size, 1.0, "bicubic", (0.0,), (255.0,))
    return resized_pixels(width, height, transform)


def test_a_photo_stands_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    Image.fromarray(np.uint8([[0, 255], [50, 100]])).save(tmp_path / "x.png", exif=exif)
    found = read_image(tmp_path / "x.png", 1, resized)
    assert np.asarray(found).tolist() == [[50, 0], [100, 255]]


def test_an_image_may_not_become_too_large_either(tmp_path: Path) -> None:
    Image.new("L", (20_000, 1)).save(tmp_path / "line.png")
    assert read_image(tmp_path / "line.png", 1, resized).size == (20_000, 1)
    with pytest.raises(UserError, match="20,000 x 1 pixels, and 1,003,520,000 once resized"):
        read_image(tmp_path / "line.png", 1, partial(resized, image_size=224))


@pytest.mark.parametrize("port", ["0", "70000", "http"])
def test_a_port_that_is_none_is_refused(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["page", "--bundle", "bundle", "--port", port])
    with pytest.raises(argparse.ArgumentError, match=f"found '{port}', expected a port from 1"):
        parse_arguments()


def test_a_checkpoint_without_mindspore_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mindspore", None)
    with pytest.raises(UserError, match="^--ckpt_path: found best.ckpt and no package mindspore"):
        load_page_model(tmp_path, "best.ckpt")


def test_each_class_has_a_name_of_its_own() -> None:
    bundle = SimpleNamespace(classes=("crane", "cat", "crane"))
    assert PageModel(bundle, None).names == ["crane (0)", "cat", "crane (2)"]
