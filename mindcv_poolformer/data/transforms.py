"""The transforms that a recipe asks for."""

from __future__ import annotations

from ..config import AugmentationConfig
from .augment import RandAugment, TrainTransform
from .mix import BatchTransform
from .preprocess import EvalTransform


def train_transform(augmentation: AugmentationConfig) -> TrainTransform:
    """What happens to each training image."""
    jitter = augmentation.color_jitter
    return TrainTransform(
        image_size=augmentation.image_resize,
        mean=augmentation.mean,
        scale=augmentation.scale,
        ratio=augmentation.ratio,
        interpolation=augmentation.interpolation,
        hflip=augmentation.hflip,
        vflip=augmentation.vflip,
        rand_augment=RandAugment.parse(augmentation.auto_augment)
        if augmentation.auto_augment
        else None,
        color_jitter=(jitter,) * 3 if isinstance(jitter, float) else jitter,
    )


def batch_transform(
    augmentation: AugmentationConfig, num_classes: int, label_smoothing: float
) -> BatchTransform:
    """What happens to each training batch."""
    return BatchTransform(
        num_classes=num_classes,
        mean=augmentation.mean,
        std=augmentation.std,
        mixup=augmentation.mixup,
        cutmix=augmentation.cutmix,
        mix_prob=augmentation.cutmix_prob,
        switch_prob=augmentation.switch_prob,
        label_smoothing=label_smoothing,
        erase_prob=augmentation.re_prob,
        erase_scale=augmentation.re_scale,
        erase_ratio=augmentation.re_ratio,
        erase_value="pixel" if augmentation.re_value == "random" else augmentation.re_value,
        erase_max_attempts=augmentation.re_max_attempts,
    )


def eval_transform(augmentation: AugmentationConfig) -> EvalTransform:
    """What happens to each image in validation, export and prediction."""
    return EvalTransform(
        image_size=augmentation.image_resize,
        crop_pct=augmentation.crop_pct,
        interpolation=augmentation.eval_interpolation,
        mean=augmentation.mean,
        std=augmentation.std,
    )
