"""JPEG files that cost a decoder and an augmentation what photographs cost.

500 x 375 pixels, the most common size in ImageNet, whose files average 110 kB. An image is noise
with the spectrum of natural scenes (amplitude falls as 1 / frequency), flat shapes with hard edges,
and a sensor's grain.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

WIDTH, HEIGHT = 500, 375
QUALITY = 90
CLASSES = 8


def write_photographs(folder: Path, count: int, seed: int = 0) -> None:
    """Write ``count`` images as folder/<class>/<number>.jpg, the same ones for the same seed."""
    for number in range(count):
        path = folder / f"class_{number % CLASSES}" / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_photograph(np.random.default_rng([seed, number])).save(path, quality=QUALITY)


def draw_photograph(rng: np.random.Generator) -> Image.Image:
    """Give one image, RGB."""
    light = _natural_noise(rng)
    tints = [0.35 * _natural_noise(rng) for _ in range(3)]
    contrast, mean = rng.uniform(35, 60), rng.uniform(90, 150)
    scene = mean + contrast * (light + np.stack(tints, axis=0))
    image = Image.fromarray(_pixels(scene), "RGB")
    drawing = ImageDraw.Draw(image, "RGBA")
    for _ in range(rng.integers(5, 15)):
        x, y = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT)
        corners = rng.uniform(-80, 80, (rng.integers(3, 7), 2)) + (x, y)
        colour = (*rng.integers(0, 256, 3).tolist(), int(rng.integers(60, 200)))
        drawing.polygon([tuple(corner) for corner in corners], fill=colour)
    grain = rng.normal(0, rng.uniform(2, 6), (HEIGHT, WIDTH, 1))
    return Image.fromarray(_pixels(np.moveaxis(np.asarray(image) + grain, 2, 0)), "RGB")


def _natural_noise(rng: np.random.Generator) -> np.ndarray:
    """(HEIGHT, WIDTH) of mean 0 and deviation 1 with a 1 / frequency spectrum."""
    spectrum = np.fft.rfft2(rng.standard_normal((HEIGHT, WIDTH)))
    frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None])
    frequency[0, 0] = np.inf
    noise = np.fft.irfft2(spectrum / frequency, s=(HEIGHT, WIDTH))
    return noise / noise.std()


def _pixels(channels: np.ndarray) -> np.ndarray:
    """(3, H, W) to (H, W, 3) uint8."""
    return np.moveaxis(channels, 0, 2).round().clip(0, 255).astype(np.uint8)
