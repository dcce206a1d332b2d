"""Against `official_detection.npz`: arrays of mmdet 2.19.0 and mmcv 1.3.14."""

from __future__ import annotations

import numpy as np
import pytest
from official import FIXTURES

from mindcv_poolformer.data.detection.fitting import (
    CanvasTransform,
    EvalTransform,
    padded,
    padded_size,
    scale_factors,
)
from mindcv_poolformer.data.detection.transforms import Draw, TrainTransform, official_test
from mindcv_poolformer.data.fitting import resize_image
from mindcv_poolformer.runtime.errors import UserError

OFFICIAL = dict(np.load(FIXTURES / "official_detection.npz"))
BGR = np.load(FIXTURES / "official_segmentation.npz")["image_bgr"]
RGB = np.ascontiguousarray(BGR[..., ::-1])
BOXES = OFFICIAL["boxes"]
MASKS = np.unpackbits(OFFICIAL["masks"])[: 2 * 90 * 121].reshape(2, 90, 121)


def official(case: str) -> tuple[TrainTransform, Draw, dict[str, np.ndarray]]:
    """The transform of a case, its draw, and what came of it."""
    arrays = {name: OFFICIAL[f"det.{case}.{name}"] for name in ("boxes", "masks", "scale_factor")}
    arrays |= {"image": OFFICIAL[f"det.{case}.image[::4,::4]"]}
    arrays["shapes"] = OFFICIAL[f"det.{case}.img_shape_pad_shape"]
    longer, shorter, flip = OFFICIAL[f"det.{case}.scale_flip"].tolist()
    transform = TrainTransform(img_scale=(longer, shorter), flip=float(flip))
    return transform, transform.draw(90, 121, np.random.default_rng(0)), arrays


@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_pictures_boxes_and_masks_are_the_official_ones(case: str) -> None:
    transform, draw, expected = official(case)
    (height, width), (high, wide) = expected["shapes"][:, :2].tolist()
    assert draw.size == (height, width) and padded_size(draw.size) == (high, wide)
    assert (scale_factors(90, 121, draw.size) == expected["scale_factor"]).all()
    resized = OFFICIAL[f"det.{case}.resized"]
    assert (resize_image(BGR, draw.size) == resized).all()
    flipped = resized[:, ::-1] if draw.flip else resized
    image = transform.image(RGB, draw)
    assert (image == flipped[..., ::-1].transpose(2, 0, 1)).all() and image.flags.c_contiguous
    boxes = transform.boxes(BOXES, draw)
    assert boxes.dtype == np.float32 and (boxes == expected["boxes"]).all()
    masks = padded(transform.masks(MASKS, draw), (high, wide))
    official_masks = np.unpackbits(expected["masks"])[: 2 * high * wide].reshape(2, high, wide)
    assert masks.dtype == np.uint8 and (masks == official_masks).all()
    assert masks.sum(axis=(1, 2)).tolist() == OFFICIAL[f"det.{case}.mask_areas"].tolist()
    found = transform.finish(padded(image, (high, wide))[None], np.array([draw.size]))[0]
    assert (found.dtype, found.shape) == (np.float32, (3, high, wide))
    np.testing.assert_allclose(found[:, ::4, ::4], expected["image"].transpose(2, 0, 1), atol=3e-7)


@pytest.mark.parametrize("case", ["a", "c"])
def test_validation_is_that_without_the_mirror(case: str) -> None:
    transform, draw, expected = official(case)
    found, size = official_test(transform.img_scale)(RGB)
    assert size == draw.size and found.dtype == np.float32
    assert found.shape == (3, *expected["shapes"][1, :2])
    image = expected["image"].transpose(2, 0, 1)
    if draw.flip:
        whole = OFFICIAL[f"det.{case}.resized"][..., ::-1].transpose(2, 0, 1)
        mean, std = (np.array(x)[:, None, None] for x in (transform.mean, transform.std))
        image = padded((whole - mean) / std, found.shape[1:])[:, ::4, ::4]
    np.testing.assert_allclose(found[:, ::4, ::4], image, atol=1e-6)


def test_a_canvas_takes_the_same_picture() -> None:
    transform = official_test((100, 60))
    small, size = transform(RGB)
    large, same = transform(RGB, (96, 160))
    assert size == same == (60, 81) and small.shape == (3, 64, 96) and large.shape == (3, 96, 160)
    assert (large[:, :64, :96] == small).all() and (large[:, 60:] == 0).all()
    assert (large[:, :, 81:] == 0).all() and (small[:, :60, :81] != 0).all()
    with pytest.raises(ValueError, match="60 x 81 pixels to be padded to 96 x 64"):
        transform(RGB, (96, 64))


def test_sizes_of_coco() -> None:
    """By hand: 1333 and 800 are the most, and each edge is rounded by itself."""
    transform = TrainTransform()
    rng = np.random.default_rng(0)
    for width, height, wide, high in [
        (640, 480, 1067, 800),
        (480, 640, 800, 1067),
        (640, 427, 1199, 800),
        (640, 360, 1333, 750),
        (640, 640, 800, 800),
        (500, 375, 1067, 800),
    ]:
        assert transform.draw(height, width, rng).size == (high, wide)
    draws = [transform.draw(10, 10, rng).flip for _ in range(1000)]
    assert abs(np.mean(draws) - 0.5) < 0.05
    assert padded_size((800, 1333)) == (800, 1344) and padded_size((1, 32), 16) == (16, 32)


def test_boxes_mirror_with_their_pictures() -> None:
    """A picture that shows its mask, and a box around that, stay together."""
    mask = np.zeros((1, 40, 64), np.uint8)
    mask[0, 10:20, 4:30] = 1
    picture = np.repeat(mask[0, ..., None] * 255, 3, axis=2)
    transform = TrainTransform(img_scale=(128, 80), flip=1.0)
    draw = transform.draw(40, 64, np.random.default_rng(0))
    boxes = transform.boxes(np.array([[4, 10, 30, 20], [-9, -9, 70, 50]], np.float32), draw)
    assert boxes.tolist() == [[68, 20, 120, 40], [0, 0, 128, 80]]
    moved = transform.masks(mask, draw)[0]
    rows, columns = np.flatnonzero(moved.any(1)), np.flatnonzero(moved.any(0))
    assert [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] == boxes[0].tolist()
    shown = transform.image(picture, draw)[0]
    assert (shown[22:38, 70:118] == 255).all() and shown[:18].max() == 0
    none = transform.boxes(np.zeros((0, 4), np.float32), draw)
    assert none.shape == (0, 4) and none.dtype == np.float32
    assert transform.masks(np.zeros((0, 40, 64), np.uint8), draw).shape == (0, 80, 128)


def test_the_preparation_is_told_and_read_again() -> None:
    transform = official_test((640, 320), 16)
    assert EvalTransform.from_dict(transform.to_dict()) == transform
    with pytest.raises(UserError, match="preprocessing has the keys"):
        EvalTransform.from_dict({"img_scale": [1, 1]})


def test_a_picture_on_a_canvas_of_one_size() -> None:
    transform = CanvasTransform.of(official_test((100, 60)), (64, 96))
    picture = np.random.default_rng(0).integers(0, 256, (30, 45, 3), dtype=np.uint8)
    found, size = transform(picture)
    assert size == (60, 90)
    np.testing.assert_array_equal(found, official_test((100, 60))(picture, (64, 96))[0])
    found, size = transform(picture.transpose(1, 0, 2))  # 90 x 60 would be too high
    assert found.shape == (3, 64, 96) and size == (64, 43)
    assert not found[:, :, 43:].any() and found[:, -1, :43].any()
    assert transform(np.zeros((300, 1, 3), np.uint8))[1] == (64, 1)
