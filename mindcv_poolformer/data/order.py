"""Which image comes when, on which rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..runtime.counted import counted
from ..runtime.errors import UserError
from . import draws


@dataclass(frozen=True)
class Shard:
    """The part of the data that one process sees: number `rank` of `size`."""

    rank: int = 0
    size: int = 1


def steps_per_epoch(num_images: int, batch_size: int, shard_size: int, drop_remainder: bool) -> int:
    """Batches that each rank sees in one epoch.

    Raises:
        UserError: fewer images than one batch on every rank while the remainder is dropped.
    """
    global_batch = batch_size * shard_size
    if not drop_remainder:
        return -(-num_images // global_batch)
    if num_images < global_batch:
        raise UserError(
            f"training set has {counted(num_images, 'image')}, expected at least {global_batch}: "
            f"batch_size {batch_size} on {shard_size} rank(s) with drop_remainder"
        )
    return num_images // global_batch


def epoch_order(num_images: int, epoch: int, seed: int, shuffle: bool) -> np.ndarray:
    """The order of an epoch, (num_images,) int64: the same on every rank."""
    if not shuffle:
        return np.arange(num_images)
    return draws.generator(draws.ORDER, seed, epoch).permutation(num_images)


@dataclass(frozen=True)
class TrainingRows:
    """The (epoch, step, image) of each sample of a rank, from start_step to the end of the run.

    Step counts batches since the beginning of the run. All ranks together see, at each step, what
    one process with their joint batch would see.
    """

    num_images: int
    batch_size: int
    shard: Shard
    seed: int
    shuffle: bool
    steps_per_epoch: int
    epochs: int
    start_step: int

    def __len__(self) -> int:
        return (self.epochs * self.steps_per_epoch - self.start_step) * self.batch_size

    def __iter__(self) -> Iterator[tuple[np.ndarray]]:
        shape = (self.steps_per_epoch, self.shard.size, self.batch_size)
        for epoch in range(self.start_step // self.steps_per_epoch, self.epochs):
            order = epoch_order(self.num_images, epoch, self.seed, self.shuffle)
            # resize drops the remainder, or fills the last batch from the order's beginning
            batches = np.resize(order, shape)[:, self.shard.rank]
            for step, images in enumerate(batches, start=epoch * self.steps_per_epoch):
                if step >= self.start_step:
                    for image in images:
                        yield (np.array([epoch, step, image], dtype=np.int64),)
