"""The streams of batches that a recipe asks for."""

from __future__ import annotations

from mindspore.dataset import Dataset

from ..config import Recipe
from . import loader, transforms
from .folder import ImageFolder


def training_batches(
    recipe: Recipe,
    images: ImageFolder,
    num_classes: int,
    drop_path_rates: tuple[float, ...],
    shard: loader.Shard,
    first_step: int,
) -> Dataset:
    """All batches of a run from ``first_step`` on; see :func:`loader.training_dataset`."""
    system, data = recipe.system, recipe.data
    return loader.training_dataset(
        images,
        transforms.train_transform(recipe.augmentation),
        transforms.batch_transform(recipe.augmentation, num_classes, recipe.loss.label_smoothing),
        batch_size=data.batch_size,
        shard=shard,
        seed=system.seed,
        shuffle=data.shuffle,
        drop_remainder=data.drop_remainder,
        epochs=recipe.schedule.epoch_size,
        num_parallel_workers=system.num_parallel_workers,
        python_multiprocessing=system.python_multiprocessing,
        drop_path_rates=drop_path_rates,
        start_step=first_step,
    )


def evaluation_batches(recipe: Recipe, images: ImageFolder, shard: loader.Shard) -> Dataset:
    """Every image once; see :func:`loader.evaluation_dataset`."""
    return loader.evaluation_dataset(
        images,
        transforms.eval_transform(recipe.augmentation),
        batch_size=recipe.data.batch_size,
        shard=shard,
        num_parallel_workers=recipe.system.num_parallel_workers,
        python_multiprocessing=recipe.system.python_multiprocessing,
    )
