"""Random changes of one training batch: mixup, cutmix, label smoothing, random erasing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .preprocess import normalize


def smoothed_targets(labels: np.ndarray, num_classes: int, smoothing: float) -> np.ndarray:
    """One-hot rows (N, num_classes) float32 with `smoothing` spread evenly over all classes."""
    targets = np.full((len(labels), num_classes), smoothing / num_classes, dtype=np.float32)
    targets[np.arange(len(labels)), labels] = 1 - smoothing + smoothing / num_classes
    return targets


def cutmix_box(
    height: int, width: int, keep: float, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draw (top, bottom, left, right) around a uniform centre, clipped to the image.

    Before clipping the box covers a part 1 - keep of the image, in the image's own shape
    (CutMix, arXiv 1905.04899).
    """
    part = math.sqrt(1 - keep)
    half_height, half_width = int(height * part) // 2, int(width * part) // 2
    y, x = int(rng.integers(height)), int(rng.integers(width))
    return (
        max(y - half_height, 0),
        min(y + half_height, height),
        max(x - half_width, 0),
        min(x + half_width, width),
    )


@dataclass(frozen=True)
class Mix:
    """How each image of a batch is mixed with its partner, its counterpart in the reversed batch.

    Args:
        keep: weight of the image's own target.
        box: (top, bottom, left, right) that cutmix takes from the partner; None blends by mixup.
    """

    keep: float
    box: tuple[int, int, int, int] | None = None

    def targets(self, targets: np.ndarray) -> np.ndarray:
        """Mix the targets (N, K) float32."""
        return targets * np.float32(self.keep) + targets[::-1] * np.float32(1 - self.keep)


def paste_box(images: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Give images (N, C, H, W) whose box, see Mix, comes from their partners."""
    top, bottom, left, right = box
    pasted = images.copy()
    pasted[:, :, top:bottom, left:right] = images[::-1, :, top:bottom, left:right]
    return pasted


def blend(image: np.ndarray, partner: np.ndarray, keep: float, out: np.ndarray) -> None:
    """Write keep * image + (1 - keep) * partner (C, H, W), rounded to levels, to float32 `out`."""
    np.multiply(image, np.float32(keep), out=out, dtype=np.float32)
    out += np.multiply(partner, np.float32(1 - keep), dtype=np.float32)
    np.rint(out, out=out)


def draw_mix(
    height: int,
    width: int,
    rng: np.random.Generator,
    *,
    mixup: float,
    cutmix: float,
    prob: float,
    switch_prob: float,
) -> Mix | None:
    """Draw one way to mix for a whole batch (timm's batch mode), or None to leave it alone.

    Args:
        height, width: of the images.
        mixup, cutmix: parameter a of the Beta(a, a) that the ratio is drawn from; 0 turns it off.
        prob: probability that the batch is mixed at all.
        switch_prob: probability of cutmix where both are on.
    """
    if mixup == cutmix == 0 or rng.random() >= prob:
        return None
    use_cutmix = cutmix > 0 and (mixup == 0 or rng.random() < switch_prob)
    alpha = cutmix if use_cutmix else mixup
    keep = rng.beta(alpha, alpha)
    if not use_cutmix:
        return Mix(keep)
    box = top, bottom, left, right = cutmix_box(height, width, keep, rng)
    return Mix(1 - (bottom - top) * (right - left) / (height * width), box)


def random_erase(
    images: np.ndarray,
    rng: np.random.Generator,
    *,
    prob: float,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    value: float | Literal["pixel"],
    max_attempts: int,
) -> None:
    """Erase a random box of each image, in place (arXiv 1708.04896, timm's distributions).

    Args:
        images: (N, C, H, W) float32, normalised.
        prob: probability for each image.
        scale: area of the box as a part of the image, lowest and highest.
        ratio: height / width of the box, lowest and highest, drawn uniformly in its logarithm.
        value: what the box is filled with; "pixel" is normal noise for every pixel and channel.
        max_attempts: draws until the box is smaller than the image; then the image is left alone.
    """
    channels, height, width = images.shape[1:]
    for image in images:
        if rng.random() >= prob:
            continue
        for _ in range(max_attempts):
            area = height * width * rng.uniform(*scale)
            aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if h < height and w < width:
                top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
                image[:, top : top + h, left : left + w] = (
                    rng.standard_normal((channels, h, w), dtype=np.float32)
                    if value == "pixel"
                    else value
                )
                break


@dataclass(frozen=True)
class BatchTransform:
    """Mix, normalise, then erase a batch; see Mix, normalize and random_erase."""

    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_prob: float = 1.0
    switch_prob: float = 0.5
    label_smoothing: float = 0.0
    erase_prob: float = 0.0
    erase_scale: tuple[float, float] = (0.02, 1 / 3)
    erase_ratio: tuple[float, float] = (0.3, 1 / 0.3)
    erase_value: float | Literal["pixel"] = "pixel"
    erase_max_attempts: int = 10

    def __call__(
        self, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Turn (N, C, H, W) uint8 and (N,) labels into float32 images and (N, K) targets."""
        targets = smoothed_targets(labels, self.num_classes, self.label_smoothing)
        height, width = images.shape[2:]
        mix = draw_mix(
            height,
            width,
            rng,
            mixup=self.mixup,
            cutmix=self.cutmix,
            prob=self.mix_prob,
            switch_prob=self.switch_prob,
        )
        if mix is not None:
            targets = mix.targets(targets)
        normalized = self._mix_and_normalize(images, mix)
        random_erase(
            normalized,
            rng,
            prob=self.erase_prob,
            scale=self.erase_scale,
            ratio=self.erase_ratio,
            value=self.erase_value,
            max_attempts=self.erase_max_attempts,
        )
        return normalized, targets

    def _mix_and_normalize(self, images: np.ndarray, mix: Mix | None) -> np.ndarray:
        if mix is None:
            return normalize(images, self.mean, self.std)
        if mix.box is not None:
            return normalize(paste_box(images, mix.box), self.mean, self.std)
        normalized = np.empty(images.shape, np.float32)
        # Image by image, so that the steps between stay in the processor's cache.
        for image, partner, out in zip(images, images[::-1], normalized, strict=True):
            blend(image, partner, mix.keep, out)
            normalize(out, self.mean, self.std, out)
        return normalized
