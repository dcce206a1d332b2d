"""Random changes of a scene's colours, with OpenCV's 8-bit arithmetic (PhotoMetricDistortion)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

HUES = 180  # of a full turn, two degrees each
_SHIFT = 12  # OpenCV divides by products with 12 binary places
_LEVELS = np.arange(256, dtype=np.float32)
_BY_VALUE = np.array([0, *(round((255 << _SHIFT) / n) for n in range(1, 256))])
_BY_RANGE = np.array([0, *(round((HUES << _SHIFT) / (6 * n)) for n in range(1, 256))])


@dataclass(frozen=True)
class Photometric:
    """One draw of the changes, made in this order; None leaves a thing as it is.

    Args:
        brightness: added to each level.
        contrast: factor of each level.
        contrast_last: change the contrast after the hue instead of after the brightness.
        saturation: factor of the saturation.
        hue: added to the hue, in steps of two degrees.
    """

    brightness: float | None = None
    contrast: float | None = None
    contrast_last: bool = False
    saturation: float | None = None
    hue: int | None = None

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Photometric:
        """Draw as MMSegmentation does: each with probability 0.5, contrast last by a fair coin."""

        def on() -> bool:
            return rng.random() < 0.5

        return cls(
            brightness=rng.uniform(-32, 32) if on() else None,
            contrast=rng.uniform(0.5, 1.5) if on() else None,
            contrast_last=on(),
            saturation=rng.uniform(0.5, 1.5) if on() else None,
            hue=int(rng.integers(-18, 18)) if on() else None,
        )

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Change RGB pixels (3, H, W) uint8."""
        if self.brightness is not None:
            pixels = adjusted(pixels, 1.0, self.brightness)
        if self.contrast is not None and not self.contrast_last:
            pixels = adjusted(pixels, self.contrast)
        if self.saturation is not None:
            hue, saturation, value = rgb_to_hsv(pixels)
            pixels = hsv_to_rgb(hue, adjusted(saturation, self.saturation), value)
        if self.hue is not None:
            hue, saturation, value = rgb_to_hsv(pixels)
            turned = (hue.astype(np.int16) + self.hue) % HUES
            pixels = hsv_to_rgb(turned.astype(np.uint8), saturation, value)
        if self.contrast is not None and self.contrast_last:
            pixels = adjusted(pixels, self.contrast)
        return pixels


def adjusted(levels: np.ndarray, factor: float, offset: float = 0.0) -> np.ndarray:
    """Give factor * levels + offset of uint8 levels, clipped to 0 … 255, without fractions."""
    table = _LEVELS * np.float32(factor) + np.float32(offset)
    return table.clip(0, 255).astype(np.uint8)[levels]


def rgb_to_hsv(pixels: np.ndarray) -> np.ndarray:
    """Give hue (0 … 179), saturation and value (3, H, W) uint8 of RGB: byte for byte OpenCV's."""
    red, green, blue = pixels.astype(np.int32)
    value = np.maximum(np.maximum(red, green), blue)
    spread = value - np.minimum(np.minimum(red, green), blue)
    half = 1 << (_SHIFT - 1)
    saturation = (spread * _BY_VALUE[value] + half) >> _SHIFT
    others = np.where(value == green, blue - red + 2 * spread, red - green + 4 * spread)
    sixths = np.where(value == red, green - blue, others)
    hue = (sixths * _BY_RANGE[spread] + half) >> _SHIFT
    hue += HUES * (hue < 0)
    return np.stack([hue, saturation, value]).astype(np.uint8)


# Which of value, lowest, falling and rising is red, green and blue in each sixth of the circle.
_RED = np.array([0, 2, 1, 1, 3, 0])
_GREEN = np.array([3, 0, 0, 2, 1, 1])
_BLUE = np.array([1, 1, 3, 0, 0, 2])


def hsv_to_rgb(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Give RGB (3, H, W) uint8 of OpenCV's 8-bit HSV, (H, W) uint8 each.

    Byte for byte as OpenCV's vector code, which drops fractions, on a processor with AVX2. The
    last pixels of a row, which fill no vector register, OpenCV itself rounds instead.
    """
    one, scale = np.float32(1), np.float32(1 / 255)
    # Cast first: NumPy 1 multiplies uint8 with a float32 scalar in float16.
    strength, bright = (x.astype(np.float32) * scale for x in (saturation, value))
    sixths = hue.astype(np.float32) * np.float32(6 / HUES)
    sector = sixths.astype(np.int64)
    part = sixths - sector.astype(np.float32)
    weights = np.stack(
        [
            bright,
            bright * (one - strength),
            bright * _rest(strength, part),
            bright * _rest(strength, one - part),
        ]
    )
    levels = (weights * np.float32(255)).astype(np.uint8)
    return np.stack(
        [np.take_along_axis(levels, c[sector][None], 0)[0] for c in (_RED, _GREEN, _BLUE)]
    )


def _rest(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 - a * b of float32, rounded once, as a fused multiply-add does."""
    return (1 - a * b.astype(np.float64)).astype(np.float32)
