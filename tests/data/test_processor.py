from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from mindspore import Tensor
from PIL import Image

from mindcv_poolformer.data.preprocess import EvalTransform
from mindcv_poolformer.data.processor import ImageProcessor
from mindcv_poolformer.runtime.errors import UserError

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SMALL = ImageProcessor(size=24, crop_pct=1.0)  # of images of 24 x 24 it changes no level


def pixels(height: int = 24, width: int = 24, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, channels), np.uint8)


def levels(batch: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) in 0 to 255, what normalisation was applied to."""
    return 255 * (batch.transpose(0, 2, 3, 1) * STD + MEAN)


def given(image, processor: ImageProcessor = SMALL) -> np.ndarray:
    """(H, W, 3) levels of one image."""
    return levels(processor(image, return_tensors="np"))[0]


def test_without_mindspore_numpy_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mindspore", None)
    with pytest.raises(UserError, match='found .*no package mindspore, .* return_tensors="np"'):
        SMALL(pixels())
    with pytest.raises(UserError, match="model poolformer_s12: found no package mindspore"):
        ImageProcessor.for_model("poolformer_s12")
    assert SMALL(pixels(), return_tensors="np").shape == (1, 3, 24, 24)


def test_all_that_holds_an_image_gives_the_same(tmp_path) -> None:
    array = pixels()
    image = Image.fromarray(array)
    image.save(tmp_path / "a.png")
    forms = [
        image,
        array,
        array.transpose(2, 0, 1),
        (array / 255).astype(np.float32),
        array.transpose(2, 0, 1) / 255,
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
    ]
    batch = SMALL(forms, return_tensors="np")
    assert batch.shape == (7, 3, 24, 24)
    assert batch.dtype == np.float32
    for found in levels(batch):
        np.testing.assert_allclose(found, array, rtol=0, atol=1e-4)
    tensor = SMALL(image)
    assert isinstance(tensor, Tensor)
    np.testing.assert_array_equal(tensor.asnumpy(), batch[:1])
    several = SMALL(np.stack([array, array]), return_tensors="np")
    np.testing.assert_array_equal(several, batch[:2])


def test_the_size_of_the_square_and_the_crop() -> None:
    array = pixels(60, 100)
    found = given(array, ImageProcessor(size=27, crop_pct=0.9, interpolation="bilinear"))
    resized = Image.fromarray(array).resize((50, 30), Image.Resampling.BILINEAR)
    expected = np.asarray(resized)[1:28, 11:38]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_a_models_own_preprocessing() -> None:
    for name, crop_pct in [("poolformer_s12", 0.9), ("poolformer_m36", 0.95)]:
        transform = ImageProcessor.for_model(name).transform
        assert (transform.image_size, transform.crop_pct) == (224, crop_pct)
        assert transform.interpolation == "bicubic"
        np.testing.assert_allclose(transform.mean, 255 * MEAN)
        np.testing.assert_allclose(transform.std, 255 * STD)
    with pytest.raises(ValueError, match="found 'poolformer_s13'"):
        ImageProcessor.for_model("poolformer_s13")
    transform = EvalTransform(8, 0.7, "bilinear", (1 / 3,), (1 / 7,))
    assert ImageProcessor.from_transform(transform).transform == transform


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_pillows_colours(mode: str) -> None:
    image = Image.fromarray(pixels()).convert(mode)
    np.testing.assert_allclose(given(image), np.asarray(image.convert("RGB")), rtol=0, atol=1e-4)


def test_a_palette_with_transparency_keeps_its_colours(tmp_path) -> None:
    image = Image.new("P", (24, 24), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    image.save(tmp_path / "a.png", transparency=1)
    assert np.ptp(given(tmp_path / "a.png"), axis=(0, 1)).max() < 1e-4
    np.testing.assert_allclose(given(tmp_path / "a.png")[0, 0], [200, 100, 50], atol=1e-4)
    alpha = ImageProcessor(24, 1.0, "bicubic", (0, 0, 0, 0), (1, 1, 1, 1))
    found = alpha(tmp_path / "a.png", return_tensors="np")[0, :, 0, 0]
    np.testing.assert_allclose(255 * found, [200, 100, 50, 0], atol=1e-4)


def test_a_cmyk_photo(tmp_path) -> None:
    ink = np.zeros((24, 24, 4), np.uint8) + np.array([0, 128, 255, 51], np.uint8)
    Image.fromarray(ink, "CMYK").save(tmp_path / "a.tif")
    expected = (255 - ink[0, 0, :3].astype(float)) * (255 - 51) / 255
    np.testing.assert_allclose(given(tmp_path / "a.tif")[0, 0], expected, atol=1)


def test_sixteen_bits_are_scaled_and_32_refused(tmp_path) -> None:
    deep = np.linspace(0, 65535, 24 * 24).astype(np.uint16).reshape(24, 24)
    for file in ("a.png", "a.tif"):
        Image.fromarray(deep).save(tmp_path / file)
        found = given(tmp_path / file)
        np.testing.assert_allclose(found, deep[:, :, None] / 257 + [0, 0, 0], rtol=0, atol=1.01)
    big_endian = Image.frombytes("I;16B", (24, 24), deep.astype(">u2").tobytes())
    np.testing.assert_array_equal(given(big_endian), found)
    for dtype, mode in [(np.int32, "I"), (np.float32, "F")]:
        image = Image.fromarray(deep.astype(dtype))
        with pytest.raises(ValueError, match=f"mode {mode}.*expected 8 or 16 bits"):
            SMALL(image)
        image.save(tmp_path / "a.tif")
        with pytest.raises(UserError, match=rf"a.tif .*mode {mode}.*expected 8 or 16 bits"):
            SMALL(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a, 2).transpose(1, 0, 2)),
        (8, np.rot90),
    ],
)
def test_photos_are_turned_upright(tmp_path, orientation: int, turn) -> None:
    array = pixels()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(array).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_allclose(given(tmp_path / "a.png"), turn(array), rtol=0, atol=1e-4)
    opened = Image.open(tmp_path / "a.png")
    np.testing.assert_allclose(given(opened), turn(array), rtol=0, atol=1e-4)


def test_damaged_orientation_is_told(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x0100] = 24
    stream = io.BytesIO()
    Image.fromarray(pixels()).save(stream, "JPEG", exif=exif)
    data = stream.getvalue()
    entry = b"\x01\x00\x00\x04"  # the width, a number of four bytes
    assert entry in data
    (tmp_path / "a.jpg").write_bytes(data.replace(entry, b"\x01\x00\x00\x05"))  # now a fraction
    with pytest.raises(UserError, match="a.jpg cannot be read: found damaged EXIF data"):
        SMALL(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="found damaged EXIF data"):
        SMALL(Image.open(tmp_path / "a.jpg"))


@pytest.mark.parametrize(
    ("image", "error", "said"),
    [
        ("missing.png", UserError, "missing.png does not exist"),
        ([], ValueError, "found none"),
        (None, TypeError, "found NoneType, expected a path"),
        ([["a.png"]], TypeError, "found list, expected a path"),
        (np.zeros((9, 9, 3), np.int64), TypeError, "array of int64, expected uint8 or floats"),
        (np.full((9, 9, 3), 255.0), ValueError, "from 255.0 to 255.0, expected 0 to 1"),
        (np.full((9, 9), -0.1), ValueError, "from -0.1"),
        (np.full((9, 9), np.nan), ValueError, "from nan"),
        (np.zeros((9, 9, 2), np.uint8), ValueError, r"\(9, 9, 2\), neither way"),
        (np.zeros((3, 9, 3), np.uint8), ValueError, r"\(3, 9, 3\), either way"),
        (np.zeros(9, np.uint8), ValueError, r"\(9,\), expected \(H, W\)"),
        (np.zeros((0, 9), np.uint8), ValueError, r"\(0, 9\), expected \(H, W\)"),
    ],
)
def test_what_holds_no_image(image, error, said: str) -> None:
    with pytest.raises(error, match=said) as raised:
        SMALL(image)
    assert "\n" not in str(raised.value)


def test_arguments_without_meaning() -> None:
    for arguments, said in [
        ({"size": 0}, "size: found 0"),
        ({"crop_pct": 1.1}, "crop_pct is 1.1"),
        ({"interpolation": "nearest"}, "interpolation: found 'nearest'"),
        ({"mean": (123.675, 116.28, 103.53)}, "expected them in units of 0 to 1"),
        ({"std": (0.5, 0.5, 0.0)}, "expected them in units of 0 to 1"),
        ({"mean": (0.5, 0.5), "std": (0.5, 0.5)}, "found 2 channels"),
        ({"mean": (0.5,)}, "1 means for 3"),
    ]:
        with pytest.raises(ValueError, match=said):
            ImageProcessor(**arguments)
    with pytest.raises(ValueError, match="return_tensors: found 'pt'"):
        SMALL(pixels(), return_tensors="pt")


@pytest.mark.parametrize("crop_pct", [0.9, 0.95])
def test_transformers_prepares_files_alike(tmp_path, crop_pct: float) -> None:
    transformers = pytest.importorskip("transformers", reason="needs transformers to compare with")
    load_image = transformers.image_utils.load_image
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = Image.fromarray(pixels(150, 251))
    photo.save(tmp_path / "turned.png", exif=exif)
    photo.convert("L").save(tmp_path / "grey.png")
    photo.convert("P").save(tmp_path / "palette.png", transparency=3)
    photo.convert("RGBA").save(tmp_path / "alpha.png")
    photo.convert("CMYK").save(tmp_path / "cmyk.tif")
    paths = sorted(map(str, tmp_path.iterdir()))
    theirs = transformers.PoolFormerImageProcessorPil(crop_pct=crop_pct)(
        [load_image(path) for path in paths], return_tensors="np"
    )["pixel_values"]
    ours = ImageProcessor(crop_pct=crop_pct)(paths, return_tensors="np")
    assert ours.shape == theirs.shape == (5, 3, 224, 224)
    assert np.abs((ours - theirs) * STD.reshape(3, 1, 1)).max() <= 1 / 255
