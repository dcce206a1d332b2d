"""Which picture comes when, on which rank: wide ones and others never share a batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .. import draws
from ..order import Shard


def wider_than_high(sizes: np.ndarray) -> np.ndarray:
    """Tell of (height, width) pairs (N, 2) which are of wide pictures, (N,) bool."""
    return sizes[:, 1] > sizes[:, 0]


def grouped_steps(groups: np.ndarray, joint_batch: int) -> int:
    """Batches of an epoch, as each group's last one is filled up.

    Args:
        groups: (N,), what those share that may be in one batch.
        joint_batch: pictures that all ranks take in one step.
    """
    _, counts = np.unique(groups, return_counts=True)
    return int((-(-counts // joint_batch)).sum())


def epoch_batches(groups: np.ndarray, joint_batch: int, epoch: int, seed: int) -> np.ndarray:
    """The batches of an epoch, (steps, joint_batch) int64, the same on every rank.

    Each is of one group; the last one of a group is filled from the beginning of the group's
    order, as often as it takes. MMDetection's sampler draws the batch of each rank by itself; with
    a joint one, all ranks see pictures of one shape at a time, and no one waits for another.
    """
    rng = draws.generator(draws.ORDER, seed, epoch)
    batches = []
    for group in np.unique(groups):
        order = rng.permutation(np.flatnonzero(groups == group))
        batches.append(np.resize(order, (-(-len(order) // joint_batch), joint_batch)))
    return rng.permutation(np.concatenate(batches))


@dataclass(frozen=True)
class GroupedRows:
    """The (epoch, step, picture) of each sample of a rank, from start_step to the end of the run.

    As :class:`data.order.TrainingRows`, but that each batch is of one group.
    """

    groups: np.ndarray
    batch_size: int
    shard: Shard
    seed: int
    epochs: int
    start_step: int

    @property
    def steps_per_epoch(self) -> int:
        """Batches that each rank sees in one epoch."""
        return grouped_steps(self.groups, self.batch_size * self.shard.size)

    def __len__(self) -> int:
        return (self.epochs * self.steps_per_epoch - self.start_step) * self.batch_size

    def __iter__(self) -> Iterator[tuple[np.ndarray]]:
        steps = self.steps_per_epoch
        joint = self.batch_size * self.shard.size
        for epoch in range(self.start_step // steps, self.epochs):
            batches = epoch_batches(self.groups, joint, epoch, self.seed)
            own = batches.reshape(steps, self.shard.size, self.batch_size)[:, self.shard.rank]
            for step, pictures in enumerate(own, start=epoch * steps):
                if step >= self.start_step:
                    for picture in pictures:
                        yield (np.array([epoch, step, picture], np.int64),)
