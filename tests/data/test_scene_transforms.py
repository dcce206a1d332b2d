"""Against `official_segmentation.npz`: arrays and scores of mmseg 0.19.0 and mmcv 1.3.14."""

from __future__ import annotations

import colorsys
from dataclasses import replace

import numpy as np
import pytest
from mindspore.dataset import vision
from official import FIXTURES

from mindcv_poolformer.data import bilinear
from mindcv_poolformer.data.fitting import fitted_size, resize_image
from mindcv_poolformer.data.segmentation.photometric import Photometric, hsv_to_rgb, rgb_to_hsv
from mindcv_poolformer.data.segmentation.scenes import IGNORED, reduce_zero
from mindcv_poolformer.data.segmentation.transforms import (
    Draw,
    TrainTransform,
    nearest,
    official_test,
    varied,
)
from mindcv_poolformer.runtime.errors import UserError

OFFICIAL = dict(np.load(FIXTURES / "official_segmentation.npz"))
BGR = OFFICIAL["image_bgr"]
RGB = np.ascontiguousarray(BGR[..., ::-1])
LABEL = OFFICIAL["seg_reduced"]


def test_zero_is_unlabelled_and_the_others_move_down() -> None:
    assert (reduce_zero(OFFICIAL["seg_png"]) == LABEL).all()
    assert reduce_zero(np.arange(256, dtype=np.uint8)).tolist() == [255, *range(254), 255]


def test_sizes_are_the_official_ones() -> None:
    for width, height, *scale, new_width, new_height in OFFICIAL[
        "rescale_size.in_scale_out_wh"
    ].tolist():
        assert fitted_size(height, width, tuple(scale)) == (new_height, new_width)
    assert fitted_size(1, 9000, (2048, 512)) == (1, 2048)  # not 0


@pytest.mark.parametrize("ratio", ["0.5", "1.37", "2.0"])
def test_resized_scenes_are_the_official_bytes(ratio: str) -> None:
    expected = OFFICIAL[f"seg.resize_{ratio}.seg"]
    rows, columns = (nearest(*edges) for edges in zip(LABEL.shape, expected.shape))
    assert (LABEL[rows[:, None], columns] == expected).all()
    name = f"seg.resize_{ratio}.image[::2,::2]"
    if name in OFFICIAL:
        for resized in (resize_image, bilinear.resize):
            assert (resized(BGR, expected.shape)[::2, ::2] == OFFICIAL[name]).all()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((60, 84), (30, 42)),  # both halve
        ((60, 84), (30, 21)),
        ((57, 83), (128, 190)),
        ((57, 83), (57, 84)),
        ((301, 5), (7, 300)),
        ((1, 1), (3, 2)),
        ((9, 1), (4, 40)),
    ],
)
def test_numpy_resizes_to_the_bytes_of_mindspores_opencv(
    before: tuple[int, int], after: tuple[int, int]
) -> None:
    picture = np.random.default_rng(3).integers(0, 256, (*before, 3), np.uint8)
    expected = vision.Resize(after, vision.Inter.BILINEAR)(picture)
    assert (bilinear.resize(picture, after) == expected).all()


@pytest.mark.parametrize("shape", ["wide", "tight"])
def test_validation_resizes_as_officially(shape: str) -> None:
    scale = tuple(OFFICIAL[f"align.{shape}.scale"].tolist())
    expected = OFFICIAL[f"align.{shape}.image"]
    transform = replace(official_test(), img_scale=scale)
    assert (transform.resize(BGR) == expected).all()
    mean, std = np.array(transform.mean), np.array(transform.std)
    normalized = (expected[..., ::-1] - mean) / std
    np.testing.assert_allclose(transform(RGB), normalized.transpose(2, 0, 1), atol=1e-6)


def test_the_official_crop_is_padded_after_it_is_normalised() -> None:
    top, left = OFFICIAL["seg.crop_yx"].tolist()
    image, label = OFFICIAL["seg.crop_pad.image[::2,::2]"], OFFICIAL["seg.crop_pad.seg"]
    draw = Draw(LABEL.shape, top, left, False, Photometric())
    crop, whole = TrainTransform(crop_size=(64, 64)), TrainTransform(crop_size=label.shape)
    pixels, classes = whole.padded(crop.image(RGB, draw), crop.label(LABEL, draw))
    assert (classes == label).all()
    found = whole.finish(pixels[None], np.array([[64, 64]]))[0]
    assert (found.dtype, found.shape) == (np.float32, (3, *label.shape))
    np.testing.assert_allclose(found[:, ::2, ::2], image.transpose(2, 0, 1), atol=3e-7)
    assert (found[:, 64:] == 0).all() and (found[:, :, 64:] == 0).all()


PHOTOGRAPH = np.ascontiguousarray(RGB[::2, ::2].transpose(2, 0, 1))


@pytest.mark.parametrize("case", ["all_contrast_first", "all_contrast_last", "hue_only"])
def test_distorted_colours_are_the_official_bytes(case: str) -> None:
    """Where OpenCV's vector code made them: the last 13 of 61 columns it rounds otherwise."""
    brightness, mode, *ints = OFFICIAL[f"photo.{case}.ints"].tolist()
    floats = OFFICIAL[f"photo.{case}.floats"].tolist()
    if mode:
        contrast, saturation, turned, *hue = ints
    else:
        saturation, turned, *hue = ints
        contrast = hue.pop()
    factors = iter(floats)
    shift = next(factors) if brightness else None
    early = next(factors) if contrast and mode else None
    strength = next(factors) if saturation else None
    late = next(factors) if contrast and not mode else None
    draw = Photometric(shift, early or late, not mode, strength, hue[0] if turned else None)
    before = PHOTOGRAPH.copy()
    found = draw.apply(PHOTOGRAPH)
    expected = OFFICIAL[f"photo.{case}"][..., ::-1].transpose(2, 0, 1)
    assert found.dtype == np.uint8
    assert (found[..., :48] == expected[..., :48]).all()
    assert abs(found.astype(int) - expected)[..., 48:].max() <= 2
    assert (PHOTOGRAPH == before).all()


def test_colours_against_the_standard_library() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 20, 20), dtype=np.uint8)
    hue, saturation, value = rgb_to_hsv(pixels).astype(int)
    back = hsv_to_rgb(*rgb_to_hsv(pixels))
    for y, x in np.ndindex(20, 20):
        exact = colorsys.rgb_to_hsv(*(pixels[:, y, x] / 255))
        turn = abs(hue[y, x] - 180 * exact[0])
        assert min(turn, 180 - turn) <= 0.51
        assert abs(saturation[y, x] - 255 * exact[1]) <= 0.51
        assert value[y, x] == pixels[:, y, x].max()
        mine = colorsys.hsv_to_rgb(hue[y, x] / 180, saturation[y, x] / 255, value[y, x] / 255)
        assert (abs(back[:, y, x] - 255 * np.array(mine)) <= 1.001).all()


def test_a_mirrored_scene_keeps_picture_and_label_together() -> None:
    """The picture shows its own label, so that each crop can tell."""
    rng = np.random.default_rng(1)
    blocks = rng.integers(0, 9, (6, 8), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    picture = np.repeat(blocks[..., None], 3, axis=2) * 20
    transform = TrainTransform(crop_size=(24, 40), img_scale=(64, 48), ratio_range=(1, 1))
    flips = set()
    for _ in range(8):
        draw = replace(transform.draw(blocks, rng), photometric=Photometric())
        assert draw.size == (48, 64)
        image, label = transform.image(picture, draw), transform.label(blocks, draw)
        assert label.shape == (24, 40) and (image == 20 * label).all()
        flips.add(draw.flip)
    assert flips == {False, True}


def test_a_crop_of_one_class_is_drawn_again() -> None:
    """Only crops over the middle hold both classes, and enough of each."""
    label = np.zeros((40, 400), np.uint8)
    label[:, 200:] = 1
    rng = np.random.default_rng(2)
    plain = dict(crop_size=(40, 100), img_scale=(400, 40), ratio_range=(1, 1))
    asked = TrainTransform(**plain)
    taken = TrainTransform(**plain, cat_max_ratio=1.0)
    shares = [
        np.mean([varied(t.label(label, t.draw(label, rng)), 0.75) for _ in range(200)])
        for t in (taken, asked)
    ]
    chance = 49 / 301  # corners at 126 to 174 of 0 to 300
    assert abs(shares[0] - chance) < 0.08
    assert abs(shares[1] - (1 - (1 - chance) ** 11)) < 0.08


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((75, 25), False), ((74, 26), True), ((100,), False), ((80, 20, -900), False), ((-5,), False)],
)
def test_the_share_of_one_class(counts: tuple[int, ...], expected: bool) -> None:
    """A negative number is of pixels that are not labelled."""
    label = np.concatenate(
        [np.full(abs(n), i if n > 0 else IGNORED, np.uint8) for i, n in enumerate(counts)]
    )
    assert varied(label, 0.75) is expected


def test_draws_are_spread_as_officially() -> None:
    rng = np.random.default_rng(3)
    transform = TrainTransform(cat_max_ratio=1.0)
    draws = [transform.draw(LABEL, rng) for _ in range(2000)]
    colours = [draw.photometric for draw in draws]
    for name, low, high in [
        ("brightness", -32, 32),
        ("contrast", 0.5, 1.5),
        ("saturation", 0.5, 1.5),
        ("hue", -18, 17),
    ]:
        values = [v for v in (getattr(c, name) for c in colours) if v is not None]
        assert abs(len(values) - 1000) < 100
        assert low <= min(values) < low + (high - low) / 50
        assert high - (high - low) / 50 < max(values) <= high
    assert abs(sum(c.contrast_last for c in colours) - 1000) < 100
    assert abs(sum(draw.flip for draw in draws) - 1000) < 100
    heights = [draw.size[0] for draw in draws]
    assert min(heights) in range(256, 262) and max(heights) in range(1015, 1025)
    tops = [draw.top for draw in draws if draw.size[0] < 520]
    assert all(draw.top == 0 for draw in draws if draw.size[0] <= 512)
    assert max(tops) > 0


def test_what_cannot_be_enlarged_is_told() -> None:
    with pytest.raises(UserError, match="found 1 x 1 pixels to be enlarged to 2048 x 2048, exp"):
        replace(official_test(), img_scale=(2048, 2048))(np.zeros((1, 1, 3), np.uint8))


@pytest.mark.parametrize("shape", [(1, 2_147_483), (2_147_483, 1)])
def test_what_is_too_long_is_told(shape: tuple[int, int]) -> None:
    pixels = np.zeros((*shape, 3), np.uint8)
    with pytest.raises(UserError, match="pixels, expected edges of at most 2,147,482$"):
        resize_image(pixels, (32, 32))
    assert resize_image(pixels[:2_147_482, :2_147_482], (32, 32)).shape == (32, 32, 3)
