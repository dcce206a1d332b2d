from __future__ import annotations

import numpy as np
import pytest

from mindcv_poolformer.data.mix import BatchTransform, cutmix_box, random_erase

LEVELS = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # mean and standard deviation that change nothing


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def batch(edge: int = 12) -> tuple[np.ndarray, np.ndarray]:
    images = generator(7).integers(0, 256, (4, 3, edge, edge), dtype=np.uint8)
    return images, np.array([0, 1, 2, 3])


def mix_batch(images, labels, rng: np.random.Generator, **settings):
    """Mixed images as levels (N, C, H, W) float32, and targets for 4 classes."""
    return BatchTransform(4, *LEVELS, **settings)(images, labels, rng)


def test_smoothed_targets_without_mixing():
    images, labels = batch()
    found, targets = mix_batch(images, labels, generator(), label_smoothing=0.1)
    np.testing.assert_array_equal(found, images)
    assert targets.dtype == np.float32
    np.testing.assert_allclose(targets, 0.025 + 0.9 * np.eye(4), rtol=1e-6)


def test_mixup_blends_with_the_reversed_batch():
    images, labels = batch()
    original = images.copy()
    keeps = []
    for seed in range(2000):
        rng = generator(seed)
        mixed, targets = mix_batch(images, labels, rng, mixup=0.8)
        keep = float(targets[0, 0])
        keeps.append(keep)
        if seed < 20:
            expected = np.rint(keep * images + (1 - keep) * images[::-1].astype(float))
            assert (mixed == np.rint(mixed)).all()
            assert np.abs(mixed - expected).max() <= 1  # halves may round either way
            assert (mixed == expected).mean() > 0.99
            expected = keep * np.eye(4) + (1 - keep) * np.eye(4)[::-1]
            np.testing.assert_allclose(targets, expected, atol=1e-6)
    np.testing.assert_array_equal(images, original)
    # Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1))
    assert np.mean(keeps) == pytest.approx(0.5, abs=0.02)
    assert np.var(keeps) == pytest.approx(1 / (4 * 2.6), abs=0.006)


def test_cutmix_pastes_a_box_and_counts_its_true_area():
    images, labels = batch(edge=20)
    original = images.copy()
    for seed in range(50):
        mixed, targets = mix_batch(images, labels, generator(seed), cutmix=1.0)
        pasted = (mixed != images).any(axis=(0, 1))
        rows, columns = pasted.any(axis=1), pasted.any(axis=0)
        assert pasted.sum() == rows.sum() * columns.sum()  # a rectangle
        np.testing.assert_array_equal(mixed[:, :, pasted], images[::-1][:, :, pasted])
        keep = 1 - pasted.sum() / 400
        np.testing.assert_allclose(
            targets, keep * np.eye(4) + (1 - keep) * np.eye(4)[::-1], atol=1e-6
        )
    np.testing.assert_array_equal(images, original)


def test_cutmix_box_by_hand():
    boxes = np.array([cutmix_box(40, 80, 0.75, generator(seed)) for seed in range(2000)])
    top, bottom, left, right = boxes.T
    # the square root of 1/4: half of each edge, 20 and 40, around a centre anywhere
    assert (bottom - top).max() == 20 and (right - left).max() == 40
    assert (bottom - top).min() == 10 and (right - left).min() in (20, 21)  # clipped at a corner
    assert top.min() == 0 and bottom.max() == 40 and left.min() == 0 and right.max() == 80
    assert cutmix_box(40, 80, 1.0, generator())[0] == cutmix_box(40, 80, 1.0, generator())[1]


def kind(images: np.ndarray, mixed: np.ndarray) -> str:
    if (mixed == images).all():
        return "none"
    pasted = (mixed == images) | (mixed == images[::-1])
    return "cutmix" if pasted.all() else "mixup"


def test_probabilities():
    images, labels = batch()
    settings = {"mixup": 10.0, "cutmix": 10.0, "mix_prob": 0.6, "switch_prob": 0.25}
    kinds = [
        kind(images, mix_batch(images, labels, generator(seed), **settings)[0])
        for seed in range(1500)
    ]
    assert kinds.count("none") / 1500 == pytest.approx(0.4, abs=0.04)
    assert kinds.count("cutmix") / 1500 == pytest.approx(0.15, abs=0.03)
    assert kinds.count("mixup") / 1500 == pytest.approx(0.45, abs=0.04)


def erase(images: np.ndarray, seed: int = 0, **changes) -> np.ndarray:
    settings = dict(prob=1.0, scale=(0.1, 0.2), ratio=(0.5, 2.0), value=5.0, max_attempts=10)
    images = images.copy()
    random_erase(images, generator(seed), **settings | changes)
    return images


def test_erased_boxes():
    erased = erase(np.zeros((800, 2, 100, 80), np.float32))
    boxes = erased[:, 0] == 5
    np.testing.assert_array_equal(boxes, erased[:, 1] == 5)
    area = boxes.sum(axis=(1, 2)) / 8000
    height, width = boxes.any(axis=2).sum(axis=1), boxes.any(axis=1).sum(axis=1)
    np.testing.assert_array_equal(height * width, boxes.sum(axis=(1, 2)))
    assert 0.097 < area.min() < 0.105 and 0.195 < area.max() < 0.203
    assert area.mean() == pytest.approx(0.15, abs=0.004)
    assert np.median(height / width) == pytest.approx(1.0, abs=0.12)
    assert 0.47 < (height / width).min() < 0.6 and 1.7 < (height / width).max() < 2.1
    assert boxes[:, -1].any() and boxes[:, 0].any() and boxes[:, :, -1].any()


def test_erasing_each_image_with_its_own_probability():
    erased = erase(np.zeros((1000, 1, 16, 16), np.float32), prob=0.25)
    assert erased.any(axis=(1, 2, 3)).mean() == pytest.approx(0.25, abs=0.05)


def test_erasing_with_noise():
    erased = erase(np.full((200, 3, 32, 32), 9, np.float32), value="pixel")
    noise = erased[erased != 9]
    assert noise.size > 50_000
    assert noise.mean() == pytest.approx(0, abs=0.02) and noise.std() == pytest.approx(1, abs=0.02)
    values, counts = np.unique(noise, return_counts=True)
    assert counts.max() <= 3  # every pixel and channel its own


def test_a_box_as_large_as_the_image_is_drawn_again_then_given_up():
    images = np.zeros((50, 1, 16, 16), np.float32)
    assert not erase(images, scale=(1.0, 1.0), ratio=(1.0, 1.0)).any()
    # about half of these draws fit
    settings = dict(scale=(0.7, 1.1), ratio=(1.0, 1.0))
    once = erase(images, max_attempts=1, **settings).any(axis=(1, 2, 3)).mean()
    assert 0.3 < once < 0.9
    assert erase(images, max_attempts=30, **settings).any(axis=(1, 2, 3)).all()


def test_batch_transform_erases_last():
    images, labels = batch()
    mean, std = (10.0, 20.0, 30.0), (2.0, 4.0, 8.0)
    found, targets = BatchTransform(4, mean, std)(images, labels, generator())
    expected = (images - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found.dtype == targets.dtype == np.float32
    np.testing.assert_array_equal(targets, np.eye(4))
    transform = BatchTransform(4, mean, std, mixup=0.8, erase_prob=1.0, erase_value=1e6)
    found, _ = transform(images, labels, generator())
    assert set(np.unique(found[found > 1e3])) == {1e6}
    assert (found > 1e3).any(axis=(1, 2, 3)).all()


def test_a_mixed_batch_is_rounded_to_levels_then_normalised():
    images, labels = batch()
    mean, std = (120.0, 110.0, 100.0), (60.0, 50.0, 40.0)
    found, targets = BatchTransform(4, mean, std, mixup=0.8)(images, labels, generator(3))
    keep = targets[0, 0]
    levels = np.rint(keep * images + (1 - keep) * images[::-1].astype(np.float32))
    expected = (levels - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    assert found.dtype == np.float32
    # one level at most where a half rounds either way
    assert np.abs(found - expected).max() <= 1 / 40 + 1e-5
    assert np.isclose(found, expected, atol=1e-5).mean() > 0.99
