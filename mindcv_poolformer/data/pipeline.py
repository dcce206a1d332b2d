"""The streams of batches that a recipe asks for."""

from __future__ import annotations

import math
from collections.abc import Callable

import mindspore as ms
from mindspore import Tensor
from mindspore.dataset import Dataset

from ..config import Recipe
from . import corrupt, loader, transforms
from .folder import ImageFolder


def training_batches(
    recipe: Recipe,
    images: ImageFolder,
    num_classes: int,
    drop_path_rates: tuple[float, ...],
    shard: loader.Shard,
    steps: int,
    first_step: int,
) -> Dataset:
    """The batches of a run of so many steps, from one on; see :func:`loader.training_dataset`."""
    system, data = recipe.system, recipe.data
    in_pass = loader.steps_per_epoch(len(images), data.batch_size, shard.size, data.drop_remainder)
    return loader.training_dataset(
        images,
        transforms.train_transform(recipe.augmentation),
        transforms.batch_transform(recipe.augmentation, num_classes, recipe.loss.label_smoothing),
        batch_size=data.batch_size,
        shard=shard,
        seed=system.seed,
        shuffle=data.shuffle,
        drop_remainder=data.drop_remainder,
        epochs=math.ceil(steps / in_pass),
        num_parallel_workers=system.num_parallel_workers,
        python_multiprocessing=system.python_multiprocessing,
        drop_path_rates=drop_path_rates,
        start_step=first_step,
        steps=steps,
        corrupt_log=corrupt.list_of(recipe),
    )


def feed(step: Callable[..., Tensor], dataset: Dataset, *, sink: bool) -> Callable[[], Tensor]:
    """Give a call that takes the next batch through a training step, and gives what it gives.

    Args:
        step: takes the columns of a batch.
        dataset: of :func:`training_batches`.
        sink: through a queue on the device; Ascend only.

    The call raises:
        UserError: an image cannot be read.
    """
    if sink:
        sunk = ms.data_sink(step, dataset)

        def take_from_queue() -> Tensor:
            with loader.workers_mistakes():
                return sunk()

        return take_from_queue
    stream = loader.batches(dataset)
    return lambda: step(*next(stream))


def evaluation_batches(recipe: Recipe, images: ImageFolder, shard: loader.Shard) -> Dataset:
    """Every image once; see :func:`loader.evaluation_dataset`."""
    return loader.evaluation_dataset(
        images,
        transforms.eval_transform(recipe.augmentation),
        batch_size=recipe.data.batch_size,
        shard=shard,
        num_parallel_workers=recipe.system.num_parallel_workers,
    )
