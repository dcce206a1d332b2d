from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindcv_poolformer.data.preprocess import EvalTransform, channels_first, normalize, open_image
from mindcv_poolformer.runtime.errors import UnreadableError, UserError

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def cubic(x: float) -> float:
    """Keys' kernel with a = -1/2, support 2."""
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def triangle(x: float) -> float:
    return max(0.0, 1 - abs(x))


def resize_matrix(size: int, new_size: int, kernel, support: float) -> np.ndarray:
    """Rows of weights for one axis; the kernel is stretched when the image shrinks."""
    stretch = max(size / new_size, 1.0)
    weights = np.zeros((new_size, size))
    for row in range(new_size):
        centre = (row + 0.5) * size / new_size
        low = max(0, math.floor(centre - support * stretch + 0.5))
        high = min(size, math.floor(centre + support * stretch + 0.5))
        for column in range(low, high):
            weights[row, column] = kernel((column + 0.5 - centre) / stretch)
    return weights / weights.sum(axis=1, keepdims=True)


def independent_resize(image: Image.Image, width: int, height: int, kernel, support: float):
    """(C, H, W) levels 0 to 255, computed with matrices, rounded after each axis."""
    pixels = np.asarray(image).astype(float).transpose(2, 0, 1)
    across = resize_matrix(image.width, width, kernel, support)
    down = resize_matrix(image.height, height, kernel, support)
    pixels = np.clip(np.rint(pixels @ across.T), 0, 255)
    return np.clip(np.rint(down @ pixels), 0, 255)


@pytest.mark.parametrize(
    ("size", "crop_pct", "image_size", "resized", "top", "left"),
    [
        ((50, 33), 0.9, 32, (53, 35), 1, 10),  # 35 = int(32 / 0.9), 53 = int(35 * 50 / 33)
        ((90, 140), 0.95, 64, (67, 104), 20, 1),
        ((20, 25), 0.9, 32, (35, 43), 5, 1),  # enlarged
        ((71, 64), 1.0, 32, (35, 32), 0, 1),
    ],
)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_resize_and_centre_crop(size, crop_pct, image_size, resized, top, left, interpolation):
    kernel, support = (cubic, 2.0) if interpolation == "bicubic" else (triangle, 1.0)
    expected = independent_resize(noise(*size), *resized, kernel, support)
    expected = expected[:, top : top + image_size, left : left + image_size]
    transform = EvalTransform(image_size, crop_pct, interpolation, MEAN, STD)
    found = transform(noise(*size))
    assert found.dtype == np.float32
    levels = found * np.array(STD)[:, None, None] + np.array(MEAN)[:, None, None]
    assert levels.shape == expected.shape
    assert np.abs(levels - expected).max() <= 1.001  # one level of 255 for fixed-point rounding


def test_a_png_with_an_empty_chunk(tmp_path: Path) -> None:
    """Pillow reads a number out of it that is not there."""
    noise(8, 8).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    chunk = bytes(4) + b"gAMA" + bytes(4)
    (tmp_path / "a.png").write_bytes(content[:-12] + chunk + content[-12:])
    with pytest.raises(UnreadableError, match="a.png cannot be read: "):
        open_image(tmp_path / "a.png")


def test_an_image_that_fits_is_only_normalised():
    image = noise(32, 32)
    found = EvalTransform(32, 1.0, "bicubic", MEAN, STD)(image)
    for channel in range(3):
        expected = (np.asarray(image)[:, :, channel] / 255 - MEAN[channel] / 255) / (
            STD[channel] / 255
        )
        np.testing.assert_allclose(found[channel], expected, atol=1e-5)


def test_grey_images_have_one_channel_and_channels_must_agree():
    assert EvalTransform(8, 1.0, "bilinear", (128.0,), (64.0,))(
        Image.new("L", (8, 8), 160)
    ).tolist() == [[[0.5] * 8] * 8]
    with pytest.raises(ValueError, match="3 channels"):
        normalize(np.zeros((1, 8, 8), np.uint8), MEAN, STD)


def test_dictionary_goes_through_json_and_back():
    transform = EvalTransform(224, 0.95, "bicubic", MEAN, STD)
    values = json.loads(json.dumps(transform.to_dict()))
    assert EvalTransform.from_dict(values) == transform
    for changes in (
        {"size": 1},
        {"pixel_range": [0, 1]},
        {"interpolation": "nearest"},
        {"crop_pct": 1.5},
        {"mean": ["x"]},
        {"mean": [1.0]},
    ):
        with pytest.raises(UserError, match="preprocessing"):
            EvalTransform.from_dict(values | changes)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
@pytest.mark.parametrize("stored", ["L", "RGB", "P", "RGBA", "1"])
def test_every_kind_of_file_becomes_the_wanted_channels(tmp_path, channels, mode, stored):
    image = noise(9, 7).convert(stored)
    image.save(tmp_path / "image.png")
    opened = open_image(tmp_path / "image.png", channels)
    assert opened.mode == mode
    np.testing.assert_array_equal(np.asarray(opened), np.asarray(image.convert(mode)))


def test_unreadable_images_are_named(tmp_path):
    noise(64, 64).save(tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "truncated.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "zero.png").write_bytes(b"")
    for name, message in [
        ("missing.jpg", "does not exist"),
        ("truncated.jpg", "truncated"),
        ("text.jpg", "not in an image format"),
        ("zero.png", "is an empty file"),
    ]:
        with pytest.raises(UserError, match=message) as error:
            open_image(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)


@pytest.mark.parametrize("suffix", ["jpg", "png", "ppm", "bmp", "tif", "webp"])
def test_an_opened_image_lives_without_its_file(tmp_path, suffix):
    path = tmp_path / f"image.{suffix}"
    noise(40, 30).save(path)
    with Image.open(path) as stored:
        expected = np.asarray(stored)
    opened = open_image(path)
    path.unlink()
    assert opened.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(opened.crop((3, 2, 33, 27))), expected[2:27, 3:33])


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_channels_first(mode):
    image = noise(9, 7).convert(mode)
    expected = np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)
    found = channels_first(image)
    assert found.flags.c_contiguous and found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def test_normalising_into_an_array():
    pixels = np.asarray(noise(9, 7)).transpose(2, 0, 1)
    out = np.empty(pixels.shape, np.float32)
    assert normalize(pixels, MEAN, STD, out) is out
    expected = (pixels - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    np.testing.assert_allclose(out, expected, atol=1e-5)
