"""Random changes of one training image; every draw comes from the generator handed in."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from ..runtime.errors import UserError
from .preprocess import RESAMPLING, channels_first

Fill = int | tuple[int, ...]

OPERATIONS = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "SolarizeAdd",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateXRel",
    "TranslateYRel",
)
OPERATION_PROBABILITY = 0.5


def crop_box(
    width: int,
    height: int,
    rng: np.random.Generator,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[int, int, int, int]:
    """Draw the (left, top, right, bottom) that a random resized crop keeps.

    Area and aspect ratio (width / height) are drawn as in torchvision's RandomResizedCrop: ten
    attempts, then the largest centred box whose ratio is within bounds.
    """
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    aspect = min(max(width / height, ratio[0]), ratio[1])
    w, h = min(width, round(height * aspect)), min(height, round(width / aspect))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def color_jitter(
    image: Image.Image, rng: np.random.Generator, strengths: Sequence[float]
) -> Image.Image:
    """Change brightness, contrast and saturation in random order, as torchvision's ColorJitter.

    Each strength s draws a factor from [max(0, 1 - s), 1 + s].
    """
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for which in rng.permutation(3):
        strength = strengths[which]
        factor = rng.uniform(max(0.0, 1 - strength), 1 + strength)
        image = enhancers[which](image).enhance(factor)
    return image


def operation_level(name: str, magnitude: float, sign: int, increasing: bool) -> float:
    """The argument of a RandAugment operation at a magnitude, by timm's scales.

    Args:
        name: one of OPERATIONS.
        magnitude: 0 to 10 on the usual scale.
        sign: 1 or -1, the direction of the operations that have one.
        increasing: severity grows with magnitude (timm's `inc1`); otherwise four enhancements run
            from weak to strong, and posterize and solarize from hard to soft.

    Returns:
        Degrees, shear factor, part of the edge, bits kept, threshold, amount or enhancement
        factor; 0 for the operations without an argument.
    """
    strength = magnitude / 10
    match name:
        case "Rotate":
            return sign * 30 * strength
        case "ShearX" | "ShearY":
            return sign * 0.3 * strength
        case "TranslateXRel" | "TranslateYRel":
            return sign * 0.45 * strength
        case "Posterize":
            bits = int(strength * 4)
            return 4 - bits if increasing else bits
        case "Solarize":
            threshold = int(strength * 256)
            return 256 - threshold if increasing else threshold
        case "SolarizeAdd":
            return int(strength * 110)
        case "Color" | "Contrast" | "Brightness" | "Sharpness":
            return max(0.1, 1 + sign * 0.9 * strength) if increasing else 0.1 + 1.8 * strength
        case _:
            return 0


def apply_operation(
    image: Image.Image, name: str, level: float, fill: Fill, resample: Image.Resampling
) -> Image.Image:
    """Run one RandAugment operation on a grey or RGB image; moved-in pixels take `fill`."""
    match name:
        case "AutoContrast":
            return ImageOps.autocontrast(image)
        case "Equalize":
            return ImageOps.equalize(image)
        case "Invert":
            return ImageOps.invert(image)
        case "Rotate":
            return image.rotate(level, resample=resample, fillcolor=fill)
        case "Posterize":
            # Not ImageOps.posterize, which refuses the 0 bits (a black image) of magnitude 10.
            mask = ~((1 << max(8 - int(level), 0)) - 1)
            return image.point([value & mask for value in range(256)] * len(image.getbands()))
        case "Solarize":
            return ImageOps.solarize(image, int(level))
        case "SolarizeAdd":
            table = [min(255, value + level) if value < 128 else value for value in range(256)]
            return image.point(table * len(image.getbands()))
        case "Color" | "Contrast" | "Brightness" | "Sharpness":
            return getattr(ImageEnhance, name)(image).enhance(level)
        case "ShearX":
            matrix: tuple[float, ...] = (1, level, 0, 0, 1, 0)
        case "ShearY":
            matrix = (1, 0, 0, level, 1, 0)
        case "TranslateXRel":
            matrix = (1, 0, level * image.width, 0, 1, 0)
        case "TranslateYRel":
            matrix = (1, 0, 0, 0, 1, level * image.height)
        case _:
            raise ValueError(f"unknown operation {name!r}")
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, resample=resample, fillcolor=fill
    )


@dataclass(frozen=True)
class RandAugment:
    """RandAugment (arXiv 1909.13719) as timm runs it.

    Args:
        magnitude: strength of the operations; 10 reaches the end of their scales.
        num_ops: operations drawn per image, each then applied with probability 0.5.
        magnitude_std: standard deviation of the magnitude, drawn anew for each operation; above
            100 it is drawn uniformly from [0, magnitude] instead.
        magnitude_max: upper bound of the drawn magnitude.
        increasing: see operation_level.
    """

    magnitude: float = 10.0
    num_ops: int = 2
    magnitude_std: float = 0.0
    magnitude_max: float = 10.0
    increasing: bool = False

    @classmethod
    def parse(cls, text: str) -> RandAugment:
        """Read timm's spelling, `rand-m9-mstd0.5-inc1`, or MindCV's, `randaug-m9-mstd0.5-inc1`.

        Raises:
            UserError: the policy is another one, or a section is unknown or out of range.
        """
        policy, *sections = text.split("-")
        if policy not in ("rand", "randaug"):
            raise UserError(f"auto_augment is {text!r}, expected rand-… or randaug-…")
        options: dict[str, float] = {}
        for section in sections:
            matched = re.fullmatch(r"(m|n|mstd|mmax|inc)(\d+(?:\.\d+)?)", section)
            if matched is None or matched[1] in options:
                raise UserError(
                    f"auto_augment {text!r} has the section {section!r}, "
                    "expected m, n, mstd, mmax or inc, each once and followed by a number"
                )
            options[matched[1]] = float(matched[2])
        if options.get("inc", 0) not in (0, 1) or options.get("n", 2) % 1 != 0:
            raise UserError(f"auto_augment is {text!r}, expected inc0 or inc1 and a whole n")
        return cls(
            magnitude=options.get("m", cls.magnitude),
            num_ops=int(options.get("n", cls.num_ops)),
            magnitude_std=options.get("mstd", cls.magnitude_std),
            magnitude_max=options.get("mmax", cls.magnitude_max),
            increasing=options.get("inc", 0) == 1,
        )

    def draw_magnitude(self, rng: np.random.Generator) -> float:
        """The magnitude of one operation, within [0, magnitude_max]."""
        magnitude = self.magnitude
        if self.magnitude_std > 100:
            magnitude = rng.uniform(0, magnitude)
        elif self.magnitude_std > 0:
            magnitude = rng.normal(magnitude, self.magnitude_std)
        return min(max(magnitude, 0.0), self.magnitude_max)

    def __call__(
        self,
        image: Image.Image,
        rng: np.random.Generator,
        fill: Fill,
        resample: Sequence[Image.Resampling],
    ) -> Image.Image:
        """Change a grey or RGB image; each operation resamples by one of `resample`."""
        for which in rng.integers(len(OPERATIONS), size=self.num_ops):
            if rng.random() >= OPERATION_PROBABILITY:
                continue
            sign = 1 if rng.random() < 0.5 else -1
            name = OPERATIONS[which]
            level = operation_level(name, self.draw_magnitude(rng), sign, self.increasing)
            image = apply_operation(image, name, level, fill, resample[rng.integers(len(resample))])
        return image


@dataclass(frozen=True)
class TrainTransform:
    """Random resized crop, flips, then RandAugment or else colour jitter, as timm orders them.

    Args:
        image_size: edge of the square that comes out, in pixels.
        mean: per channel, 0 to 255; its length is the number of channels, its rounded values
            fill what RandAugment's geometric operations uncover.
        scale: area kept by the crop as a part of the image, lowest and highest.
        ratio: width / height of the crop, lowest and highest.
        interpolation: of crop and geometric operations; random draws one of the two each time.
        hflip, vflip: probability of mirroring left-right, upside down.
        rand_augment: None for none.
        color_jitter: strengths of brightness, contrast and saturation; unused with rand_augment.

    Raises:
        UserError: RandAugment with a number of channels other than 1 or 3.
    """

    image_size: int
    mean: tuple[float, ...]
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Literal["bilinear", "bicubic", "random"] = "random"
    hflip: float = 0.5
    vflip: float = 0.0
    rand_augment: RandAugment | None = None
    color_jitter: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if self.rand_augment is not None and len(self.mean) not in (1, 3):
            raise UserError(
                f"auto_augment with images of {len(self.mean)} channels, expected 1 or 3"
            )

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> np.ndarray:
        """Turn an image of len(mean) channels into (C, image_size, image_size) uint8."""
        resample = (
            tuple(RESAMPLING.values())
            if self.interpolation == "random"
            else (RESAMPLING[self.interpolation],)
        )
        # Cropped before it is resized: resize(box=…) would read pixels outside the box.
        image = image.crop(crop_box(*image.size, rng, self.scale, self.ratio)).resize(
            (self.image_size, self.image_size), resample[rng.integers(len(resample))]
        )
        if rng.random() < self.hflip:
            image = ImageOps.mirror(image)
        if rng.random() < self.vflip:
            image = ImageOps.flip(image)
        if self.rand_augment is not None:
            fill = tuple(min(255, round(value)) for value in self.mean)
            image = self.rand_augment(image, rng, fill[0] if len(fill) == 1 else fill, resample)
        elif self.color_jitter is not None:
            image = color_jitter(image, rng, self.color_jitter)
        return channels_first(image)
