"""Batches of scenes through MindSpore's dataset engine, drawn and resumed as those of images are.

What :mod:`data.loader` says of draws, workers and restarts holds here too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import mindspore.dataset as ds
import numpy as np

from ...runtime.counted import counted
from ...runtime.errors import UserError
from .. import draws
from ..corrupt import SubstitutingReader
from ..loader import each_loaded, first_rows, loaded_batches, prepare_engine, usable_workers
from ..order import Shard, TrainingRows, steps_per_epoch
from .fitting import EvalTransform
from .scenes import SceneFolder
from .transforms import TrainTransform

SCENES_AT_ONCE = 2  # that a worker loads, at most; a scene takes far longer than its handover


@dataclass(frozen=True)
class _LoadTraining:
    """Rows (K, 3) of epoch, step, scene → padded crops, their labels, sizes, and the rows again."""

    scenes: SceneFolder
    transform: TrainTransform
    seed: int
    rank: int
    reader: SubstitutingReader[tuple[np.ndarray, np.ndarray]] | None

    def __call__(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        loaded = [self._load(epoch, scene) for epoch, _, scene in rows.tolist()]
        images, labels, sizes = map(np.stack, zip(*loaded, strict=True))
        return images, labels, sizes, rows

    def _load(self, epoch: int, scene: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = draws.generator(draws.IMAGE, self.seed, self.rank, epoch, scene)
        if self.reader is None:
            picture, label = self.scenes.read(scene)
        else:
            (picture, label), scene = self.reader.open(epoch, scene)
        draw = self.transform.draw(label, rng)
        label = self.transform.label(label, draw)
        try:
            image = self.transform.image(picture, draw)
        except UserError as error:
            raise UserError(f"image {self.scenes.images[scene]}: {error}") from None
        return (*self.transform.padded(image, label), np.array(label.shape, np.int32))


@dataclass(frozen=True)
class _FinishBatch:
    """Crops (M, K, 3, H, W) uint8, labels, sizes and rows of a batch → what a step takes."""

    transform: TrainTransform
    dropout: tuple[float, int] | None
    seed: int
    rank: int

    def __call__(
        self, images: np.ndarray, labels: np.ndarray, sizes: np.ndarray, rows: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        images, labels = (x.reshape(-1, *x.shape[2:]) for x in (images, labels))
        batch = self.transform.finish(images, sizes.reshape(-1, 2)), labels.astype(np.int32)
        if self.dropout is None:
            return batch
        epoch, step, _ = rows[0, 0].tolist()
        rng = draws.generator(draws.DROPOUT, self.seed, self.rank, epoch, step)
        return (*batch, dropout_scales(*self.dropout, len(images), rng))


def dropout_scales(
    rate: float, channels: int, batch_size: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw which channels of each sample a step drops (arXiv 1411.4280).

    Gives (batch_size, channels) float32: 0 where dropped, 1 / (1 - rate) where kept.
    """
    kept = rng.random((batch_size, channels)) < 1 - rate
    return (kept / (1 - rate)).astype(np.float32)


def training_scenes(
    scenes: SceneFolder,
    transform: TrainTransform,
    *,
    batch_size: int,
    shard: Shard,
    seed: int,
    steps: int,
    num_parallel_workers: int,
    python_multiprocessing: bool,
    dropout: tuple[float, int] | None = None,
    start_step: int = 0,
    corrupt_log: Path | None = None,
) -> ds.Dataset:
    """All batches of a training run as one stream; an epoch's last, incomplete one is left out.

    Args:
        scenes: to train on.
        transform: of each scene.
        batch_size: scenes per batch and rank.
        shard: the part that this process reads.
        seed: the run's seed, the same on every rank.
        steps: of the whole run, which may end within an epoch.
        num_parallel_workers: that decode and augment scenes, at most; a machine with fewer cores
            takes as many as it has, and rank 0 says so.
        python_multiprocessing: run them as processes instead of threads.
        dropout: rate, and number of the channels that it is drawn for.
        start_step: batches of the run already seen; the stream is that of step 0 without them.
        corrupt_log: list a picture or label that cannot be read in this file and take another
            scene in its place, see SubstitutingReader; None stops at the first.

    Returns:
        Columns `images` (N, 3, H, W) float32, `labels` (N, H, W) int32, in which IGNORED is no
        class, and with `dropout` a column `dropout`, see dropout_scales.

    Raises:
        UserError: too few scenes. One that cannot be read stops the iteration instead, see
            loader.worker_error.
    """
    prepare_engine()
    workers = usable_workers(num_parallel_workers, shard.rank == 0)
    per_epoch = steps_per_epoch(len(scenes), batch_size, shard.size, drop_remainder=True)
    epochs = math.ceil(steps / per_epoch)
    rows = TrainingRows(len(scenes), batch_size, shard, seed, True, per_epoch, epochs, start_step)
    reader = SubstitutingReader(scenes, scenes.read, seed, corrupt_log) if corrupt_log else None
    at_once = math.gcd(batch_size, SCENES_AT_ONCE)
    dataset = ds.GeneratorDataset(rows, ["rows"], shuffle=False, python_multiprocessing=False)
    loads = dataset.batch(at_once, drop_remainder=True, num_parallel_workers=1)
    return loaded_batches(
        first_rows(loads, (steps - start_step) * (batch_size // at_once)),
        _LoadTraining(scenes, transform, seed, shard.rank, reader),
        ["images", "labels", "sizes", "rows"],
        _FinishBatch(transform, dropout, seed, shard.rank),
        ["images", "labels", *(["dropout"] if dropout else [])],
        batch_size // at_once,
        workers,
        python_multiprocessing,
    )


@dataclass(frozen=True)
class _LoadEvaluation:
    """Scene number → (3, h, w) float32, and its label (H, W) int32."""

    scenes: SceneFolder
    transform: EvalTransform

    def __call__(self, scene: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        picture, label = self.scenes.read(int(scene))
        try:
            return self.transform(picture), label.astype(np.int32)
        except UserError as error:
            raise UserError(f"image {self.scenes.images[int(scene)]}: {error}") from None


def evaluation_scenes(
    scenes: SceneFolder, transform: EvalTransform, *, shard: Shard, num_parallel_workers: int
) -> ds.Dataset:
    """Every scene exactly once over all ranks, one at a time, each at a size of its own.

    Ranks may have a different number of scenes. Takes its arguments, and raises, as
    training_scenes; a rank must have at least one scene.

    Returns:
        Columns `images` (1, 3, h, w) float32 and `labels` (1, H, W) int32 of the picture's own
        size, in which IGNORED is no class.
    """
    prepare_engine()
    workers = usable_workers(num_parallel_workers, shard.rank == 0)
    if len(scenes) < shard.size:
        raise UserError(
            f"{scenes.root}: found {counted(len(scenes), 'scene')} for {shard.size} ranks, "
            "expected at least one each"
        )
    load = _LoadEvaluation(scenes, transform)
    own = range(shard.rank, len(scenes), shard.size)
    return each_loaded(own, load, ["images", "labels"], workers).batch(1)
