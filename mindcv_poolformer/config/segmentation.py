"""The section of a recipe that semantic segmentation alone reads."""

from __future__ import annotations

from dataclasses import dataclass

from jsonargparse.typing import PositiveFloat, PositiveInt

from .bounds import FractionAboveZero, FractionBelowOne, ImageSize


@dataclass(frozen=True)
class SegmentationConfig:
    """segmentation: scenes and the network on them; with task segmentation

    Args:
        reduce_zero_label: in label PNGs 0 means unlabelled and k the k-th class, as in ADE20K;
            false: k is the class that classes.txt has in line k + 1.
        ratio_range: lowest and highest factor on img_scale in training.
        crop_size: height and width of the training crop, pixels.
        cat_max_ratio: share of a crop's labelled pixels that no class is to reach; up to ten more
            crops are drawn for it.
        photometric_distortion: change brightness, contrast, saturation and hue in training.
        head_channels: of the levels in the head.
        head_dropout: share of the head's channels that are dropped in training.
    """

    reduce_zero_label: bool = True
    ratio_range: tuple[PositiveFloat, PositiveFloat] = (0.5, 2.0)
    crop_size: tuple[ImageSize, ImageSize] = (512, 512)
    cat_max_ratio: FractionAboveZero = 0.75
    photometric_distortion: bool = True
    head_channels: PositiveInt = 128
    head_dropout: FractionBelowOne = 0.1
