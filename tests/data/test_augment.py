from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mindcv_poolformer.data.augment import (
    OPERATIONS,
    RandAugment,
    TrainTransform,
    apply_operation,
    color_jitter,
    crop_box,
    operation_level,
)
from mindcv_poolformer.runtime.errors import UserError

MEAN = (123.675, 116.28, 103.53)
BILINEAR, BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
DEFAULT_RATIO = (3 / 4, 4 / 3)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def noise(width: int, height: int, low: int = 0, high: int = 256) -> Image.Image:
    return Image.fromarray(generator().integers(low, high, (height, width, 3), dtype=np.uint8))


# Magnitude, sign, value with inc0, value with inc1: worked out by hand from timm's scales.
LEVELS = {
    "AutoContrast": [(9, 1, 0, 0)],
    "Equalize": [(9, 1, 0, 0)],
    "Invert": [(9, 1, 0, 0)],
    "Rotate": [(9, 1, 27, 27), (5, -1, -15, -15)],
    "Posterize": [(9, 1, 3, 1), (10, 1, 4, 0), (0, 1, 0, 4), (4.9, 1, 1, 3)],
    "Solarize": [(9, 1, 230, 26), (10, 1, 256, 0), (0, 1, 0, 256)],
    "SolarizeAdd": [(9, 1, 99, 99), (8.7, 1, 95, 95)],
    "Color": [(9, 1, 1.72, 1.81), (9, -1, 1.72, 0.19), (10, -1, 1.9, 0.1), (0, 1, 0.1, 1.0)],
    "Contrast": [(5, 1, 1.0, 1.45), (5, -1, 1.0, 0.55)],
    "Brightness": [(9, 1, 1.72, 1.81), (12, -1, 2.26, 0.1)],
    "Sharpness": [(2, 1, 0.46, 1.18), (2, -1, 0.46, 0.82)],
    "ShearX": [(9, 1, 0.27, 0.27), (9, -1, -0.27, -0.27)],
    "ShearY": [(10, -1, -0.3, -0.3)],
    "TranslateXRel": [(9, 1, 0.405, 0.405), (10, -1, -0.45, -0.45)],
    "TranslateYRel": [(2, -1, -0.09, -0.09)],
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_levels(name):
    for magnitude, sign, plain, increasing in LEVELS[name]:
        assert operation_level(name, magnitude, sign, False) == pytest.approx(plain)
        assert operation_level(name, magnitude, sign, True) == pytest.approx(increasing)


def changed(name: str, level: float, pixels: np.ndarray, fill=(1, 2, 3)) -> np.ndarray:
    return np.asarray(apply_operation(Image.fromarray(pixels), name, level, fill, BILINEAR))


def test_pointwise_operations():
    pixels = np.asarray(noise(16, 12))
    wide = pixels.astype(int)
    np.testing.assert_array_equal(changed("Invert", 0, pixels), 255 - wide)
    np.testing.assert_array_equal(
        changed("Solarize", 26, pixels), np.where(wide < 26, wide, 255 - wide)
    )
    np.testing.assert_array_equal(changed("Solarize", 256, pixels), wide)
    np.testing.assert_array_equal(
        changed("SolarizeAdd", 99, pixels), np.where(wide < 128, np.minimum(wide + 99, 255), wide)
    )
    np.testing.assert_array_equal(changed("Posterize", 1, pixels), wide // 128 * 128)
    np.testing.assert_array_equal(changed("Posterize", 3, pixels), wide // 32 * 32)
    np.testing.assert_array_equal(changed("Posterize", 0, pixels), 0 * wide)
    np.testing.assert_array_equal(changed("Posterize", 8, pixels), wide)


def test_histogram_operations():
    levels = np.repeat(np.array([60, 70, 80, 110], np.uint8), 255).reshape(30, 34)
    image = np.stack([levels] * 3, axis=-1)
    stretched = changed("AutoContrast", 0, image)
    np.testing.assert_allclose(stretched, (image.astype(float) - 60) * 255 / 50, atol=1)
    flattened = changed("Equalize", 0, image)
    assert sorted(set(flattened.ravel().tolist())) == [0, 85, 170, 255]


def test_enhancements():
    pixels = np.asarray(noise(16, 12, 60, 160))
    wide = pixels.astype(float)
    grey = np.rint(wide @ [0.299, 0.587, 0.114])[..., None]
    np.testing.assert_allclose(changed("Brightness", 1.45, pixels), wide * 1.45, atol=1)
    np.testing.assert_allclose(changed("Color", 0.55, pixels), grey + 0.55 * (wide - grey), atol=1)
    np.testing.assert_allclose(
        changed("Contrast", 0.19, pixels), grey.mean() + 0.19 * (wide - grey.mean()), atol=1.1
    )
    around = sum(wide[1 + dy : 11 + dy, 1 + dx : 15 + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1))
    smooth = (around + 4 * wide[1:-1, 1:-1]) / 13
    expected = smooth + 1.3 * (wide[1:-1, 1:-1] - smooth)
    np.testing.assert_allclose(changed("Sharpness", 1.3, pixels)[1:-1, 1:-1], expected, atol=1.3)


def test_geometric_operations():
    pixels = np.asarray(noise(20, 20))
    np.testing.assert_array_equal(changed("Rotate", 90, pixels), np.rot90(pixels))
    moved = changed("TranslateXRel", 0.25, pixels)
    np.testing.assert_array_equal(moved[:, :15], pixels[:, 5:])
    assert (moved[:, 15:] == (1, 2, 3)).all()
    moved = changed("TranslateYRel", -0.1, pixels)
    np.testing.assert_array_equal(moved[2:], pixels[:-2])
    assert (moved[:2] == (1, 2, 3)).all()
    y, x = np.mgrid[:20, :20]
    ramp = np.stack([4 * x] * 3, axis=-1).astype(np.uint8)
    inside = x + y < 18
    # pixel centres: row y reads x + level * (y + 1/2)
    expected = 4 * (x + y + 0.5)[inside, None].repeat(3, axis=1)
    np.testing.assert_allclose(changed("ShearX", 1.0, ramp)[inside], expected, atol=1)
    np.testing.assert_array_equal(
        changed("ShearY", 1.0, ramp.swapaxes(0, 1).copy()),
        changed("ShearX", 1.0, ramp).swapaxes(0, 1),
    )


def test_parse():
    expected = RandAugment(9, 2, 0.5, 10, True)
    assert RandAugment.parse("rand-m9-mstd0.5-inc1") == expected
    assert RandAugment.parse("randaug-m9-mstd0.5-inc1") == expected
    assert RandAugment.parse("rand") == RandAugment(10, 2, 0, 10, False)
    assert RandAugment.parse("rand-inc0-n3-mmax15-m12.5") == RandAugment(12.5, 3, 0, 15, False)
    for text in ("autoaug", "rand-m", "rand-x3", "rand-m9-m8", "rand-inc2", "rand-n1.5", "rand-"):
        with pytest.raises(UserError, match="auto_augment"):
            RandAugment.parse(text)


def magnitudes(policy: RandAugment) -> np.ndarray:
    rng = generator()
    return np.array([policy.draw_magnitude(rng) for _ in range(4000)])


def test_magnitude_noise_and_its_bounds():
    assert set(magnitudes(RandAugment(9))) == {9}
    drawn = magnitudes(RandAugment(5, magnitude_std=0.5))
    assert drawn.mean() == pytest.approx(5, abs=0.05)
    assert drawn.std() == pytest.approx(0.5, abs=0.03)
    drawn = magnitudes(RandAugment(9, magnitude_std=1.0))
    assert drawn.max() == 10
    assert (drawn == 10).mean() == pytest.approx(0.159, abs=0.02)  # beyond one sigma
    assert magnitudes(RandAugment(1, magnitude_std=1.0)).min() == 0
    assert magnitudes(RandAugment(9, magnitude_std=1.0, magnitude_max=15)).max() > 10
    drawn = magnitudes(RandAugment(8, magnitude_std=101))
    assert 0 <= drawn.min() < 0.1 and 7.9 < drawn.max() <= 8
    assert drawn.mean() == pytest.approx(4, abs=0.15)


@pytest.mark.parametrize("increasing", [False, True])
def test_each_operation_is_drawn_and_applied_half_the_time(increasing):
    image = noise(16, 16, 20, 250)  # no operation leaves these levels alone
    policy = RandAugment(9, num_ops=1, increasing=increasing)
    rng = generator()
    drawn = [policy(image, rng, (1, 2, 3), [BICUBIC]).tobytes() for _ in range(1500)]
    expected = {
        apply_operation(
            image, name, operation_level(name, 9, sign, increasing), (1, 2, 3), BICUBIC
        ).tobytes()
        for name in OPERATIONS
        for sign in (1, -1)
    }
    assert set(drawn) == expected | {image.tobytes()}
    assert drawn.count(image.tobytes()) / len(drawn) == pytest.approx(0.5, abs=0.05)


def test_number_of_operations():
    image = noise(16, 16, 20, 250)
    changes = [
        RandAugment(9, num_ops=3, increasing=True)(image, generator(seed), 0, [BICUBIC]) != image
        for seed in range(400)
    ]
    assert np.mean(changes) == pytest.approx(1 - 0.5**3, abs=0.05)


def test_crop_box_by_hand():
    assert crop_box(64, 64, generator(), (1, 1), (1, 1)) == (0, 0, 64, 64)
    assert crop_box(100, 50, generator(), (1, 1), (1, 1)) == (25, 0, 75, 50)
    assert crop_box(300, 100, generator(), (1, 1), DEFAULT_RATIO) == (83, 0, 216, 100)
    assert crop_box(100, 300, generator(), (1, 1), DEFAULT_RATIO) == (0, 83, 100, 216)


def test_crop_box_distribution():
    rng = generator()
    boxes = np.array([crop_box(1000, 800, rng, (0.1, 0.2), (0.25, 4)) for _ in range(3000)])
    left, top, right, bottom = boxes.T
    assert left.min() >= 0 and top.min() >= 0 and right.max() <= 1000 and bottom.max() <= 800
    area = (right - left) * (bottom - top) / 800_000
    aspect = (right - left) / (bottom - top)
    assert 0.099 < area.min() < 0.101 and 0.199 < area.max() < 0.201
    assert area.mean() == pytest.approx(0.15, abs=0.003)
    assert 0.24 < aspect.min() < 0.27 and 3.8 < aspect.max() < 4.1
    assert np.median(aspect) == pytest.approx(1, abs=0.08)  # uniform in the logarithm
    part = left / (1000 - (right - left))
    assert part.mean() == pytest.approx(0.5, abs=0.03) and part.max() > 0.99


def whole(**changes) -> TrainTransform:
    """A transform that keeps the whole of a square image."""
    settings = dict(image_size=16, mean=MEAN, scale=(1, 1), ratio=(1, 1), hflip=0.0)
    return TrainTransform(**(settings | changes))


def test_train_transform_resizes_by_either_filter():
    image = noise(40, 40)
    expected = {
        np.asarray(image.resize((16, 16), resample)).transpose(2, 0, 1).tobytes()
        for resample in (BILINEAR, BICUBIC)
    }
    found = [whole()(image, generator(seed)) for seed in range(20)]
    assert {pixels.tobytes() for pixels in found} == expected
    assert found[0].shape == (3, 16, 16) and found[0].dtype == np.uint8
    bicubic = whole(interpolation="bicubic")(image, generator())
    assert bicubic.tobytes() == (
        np.asarray(image.resize((16, 16), BICUBIC)).transpose(2, 0, 1).tobytes()
    )


def test_crop_ignores_the_pixels_around_it():
    image = noise(60, 60)
    transform = whole(scale=(0.3, 0.3), interpolation="bicubic")
    rng = generator(5)
    box = crop_box(60, 60, rng, (0.3, 0.3), (1, 1))
    expected = Image.fromarray(np.asarray(image)[box[1] : box[3], box[0] : box[2]]).resize(
        (16, 16), BICUBIC
    )
    found = transform(image, generator(5))
    np.testing.assert_array_equal(found, np.asarray(expected).transpose(2, 0, 1))


def test_flips():
    image = noise(16, 16)
    pixels = np.asarray(image).transpose(2, 0, 1)
    mirrored = whole(hflip=1.0)(image, generator())
    np.testing.assert_array_equal(mirrored, pixels[:, :, ::-1])
    np.testing.assert_array_equal(whole(vflip=1.0)(image, generator()), pixels[:, ::-1])
    flips = [(whole(hflip=0.3)(image, generator(s)) != pixels).any() for s in range(500)]
    assert np.mean(flips) == pytest.approx(0.3, abs=0.06)


def test_uncovered_pixels_take_the_mean_colour():
    image = Image.new("RGB", (16, 16), (124, 116, 104))
    transform = whole(rand_augment=RandAugment.parse("rand-m9-n1-mstd0.5-inc1"))
    for seed in range(60):
        pixels = transform(image, generator(seed))
        assert (pixels == pixels[:, :1, :1]).all()


def test_color_jitter_strengths():
    image = Image.new("RGB", (2, 2), (100, 100, 100))
    values = [
        int(np.asarray(color_jitter(image, generator(seed), (0.4, 0, 0)))[0, 0, 0])
        for seed in range(600)
    ]
    assert 60 <= min(values) <= 62 and 138 <= max(values) <= 140
    assert np.mean(values) == pytest.approx(100, abs=3)
    colours = noise(8, 8, 60, 160)
    grey = np.asarray(colours.convert("L"), dtype=float)
    for seed in range(20):
        contrast = np.asarray(color_jitter(colours, generator(seed), (0, 0.4, 0)).convert("L"))
        assert 0.55 < contrast.std() / grey.std() < 1.45
        saturated = color_jitter(colours, generator(seed), (0, 0, 0.4)).convert("L")
        np.testing.assert_allclose(np.asarray(saturated, dtype=float), grey, atol=2)


def test_color_jitter_gives_way_to_rand_augment():
    image = noise(16, 16)
    jitter = (0.4, 0.4, 0.4)
    pixels = np.asarray(image).transpose(2, 0, 1)
    assert (whole(color_jitter=jitter)(image, generator()) != pixels).any()
    both = whole(color_jitter=jitter, rand_augment=RandAugment(num_ops=0))
    np.testing.assert_array_equal(both(image, generator()), pixels)


def test_channels():
    policy = RandAugment.parse("rand-m9-mstd0.5-inc1")
    grey = whole(mean=(128.0,), rand_augment=policy)
    for seed in range(100):
        assert grey(Image.new("L", (20, 20), 50), generator(seed)).shape == (1, 16, 16)
    with pytest.raises(UserError, match="4 channels"):
        whole(mean=(1.0, 2.0, 3.0, 4.0), rand_augment=policy)
    four = whole(mean=(1.0, 2.0, 3.0, 4.0), color_jitter=(0.4, 0.4, 0.4))
    assert four(Image.new("RGBA", (20, 20)), generator()).shape == (4, 16, 16)
