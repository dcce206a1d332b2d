"""segment: the classes of pixels in one call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor
from PIL import Image
from segmenters import small_segmenter
from toy_segmenter import ToySegmenter

import mindcv_poolformer
from mindcv_poolformer.data.segmentation.fitting import EvalTransform
from mindcv_poolformer.data.segmentation.labelling import Labelling
from mindcv_poolformer.data.segmentation.palette import palette_of
from mindcv_poolformer.data.segmentation.stretch import StretchTransform
from mindcv_poolformer.export.choices import Choices
from mindcv_poolformer.export.mindir import Trained, write_bundle
from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.segmentation import Segmentation

CLASSES = ("sky", "sea", "sand", "boat", "bird")
PALETTE = ((10, 20, 30), (40, 50, 60), (70, 80, 90), (100, 110, 120), (255, 0, 128))
TRANSFORM = EvalTransform((128, 64), 32, (120.0, 115.0, 100.0), (60.0, 50.0, 55.0))


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 x 53 pixels: fitted to 64 x 97 at most, which AlignResize makes 64 x 128."""
    path = tmp_path_factory.mktemp("pictures") / "0.png"
    coarse = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((80, 53), Image.Resampling.BILINEAR).save(path)
    return path


def test_a_network_sees_the_official_tests_picture(picture: Path, pynative_mode: None) -> None:
    network = small_segmenter().set_train()
    network.preprocessing, network.classes = TRANSFORM.to_dict(), CLASSES[:3]
    inputs = Tensor(TRANSFORM(np.asarray(Image.open(picture)))[None])
    assert inputs.shape == (1, 3, 64, 128)
    network.set_train(False)
    expected = network.segment(inputs, (53, 80)).asnumpy()[0]
    network.set_train()
    result = mindcv_poolformer.segment(picture, network)
    assert isinstance(result, Segmentation) and network.training
    assert result.labels.dtype == np.int32 and len(np.unique(result.labels)) > 1
    assert (result.labels == expected).mean() > 0.999
    assert result.classes == ("sky", "sea", "sand", "LABEL_3", "LABEL_4")
    assert result.palette == tuple(map(tuple, palette_of(result.classes).tolist()))
    several = mindcv_poolformer.segment(
        [Image.open(picture), np.asarray(Image.open(picture))], network
    )
    for one in several:
        np.testing.assert_array_equal(one.labels, result.labels)


def test_a_bundle_answers_from_its_folder(picture: Path, tmp_path: Path, graph_mode: None) -> None:
    (tmp_path / "best.ckpt").write_bytes(b"")
    labelling = Labelling(PALETTE)
    trained = Trained(ToySegmenter(), "toy", tmp_path / "best.ckpt", TRANSFORM, CLASSES, labelling)
    transform = StretchTransform.of(TRANSFORM, (64, 64))
    inputs = transform(Image.open(picture))[None]
    write_bundle(trained, tmp_path / "bundle", inputs, Choices(deploy=False))
    result = mindcv_poolformer.segment(picture, tmp_path / "bundle")
    assert (result.classes, result.palette) == (CLASSES, PALETTE)
    bundle = mindcv_poolformer.load_segmenter(tmp_path / "bundle")
    np.testing.assert_array_equal(result.labels, bundle.label_map(Image.open(picture)))
    turned = Image.open(picture).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter, clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    upright = mindcv_poolformer.segment(tmp_path / "turned.png", bundle)
    np.testing.assert_array_equal(upright.labels, result.labels)
    with pytest.raises(UserError, match="bundle .*: found one of toy, a segmenter, expected a"):
        mindcv_poolformer.load_model(tmp_path / "bundle")


def test_shares_and_colours() -> None:
    labels = np.array([[4, 4, 4, 0], [4, 0, 1, 4]], np.int32)
    result = Segmentation(labels, CLASSES, PALETTE)
    assert result.shares == [("bird", 0.625), ("sky", 0.25), ("sea", 0.125)]
    pixels = np.full((2, 4, 3), (200, 100, 50), np.uint8)
    found = np.asarray(result.overlay(Image.fromarray(pixels)), int)
    assert abs(found[0, 0] - (227.5, 50, 89)).max() <= 0.5
    assert abs(found[1, 2] - (120, 75, 55)).max() <= 0.5
    np.testing.assert_array_equal(result.overlay(Image.fromarray(pixels), 0), pixels)


def test_files_have_the_data_sets_own_numbers(tmp_path: Path) -> None:
    labels = np.array([[0, 3], [253, 1]], np.int32)
    palette = ((0, 0, 0),) * 256
    for labelling, first in ((Labelling(palette, True), 1), (Labelling(palette), 0)):
        labelling.file_image(labels).save(tmp_path / "labels.png")
        with Image.open(tmp_path / "labels.png") as image:
            assert image.mode == "L"
            np.testing.assert_array_equal(np.asarray(image), labels + first)
    with pytest.raises(ValueError, match="found 256 in a file, expected at most 255"):
        Labelling(palette, True).file_image(labels + 2)


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="model .*nowhere: found no such file or folder, expected"):
        mindcv_poolformer.segment(tmp_path / "a.png", tmp_path / "nowhere")
