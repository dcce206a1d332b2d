"""Batches from a folder through MindSpore's dataset engine.

Every random draw is a pure function of the run's seed and the draw's own coordinates (rank, epoch,
step, image), so neither the number of workers nor a restart changes a batch.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import cpu_count
from pathlib import Path

import mindspore.dataset as ds
import numpy as np
from mindspore import Tensor
from PIL import Image
from tqdm import tqdm

from ..runtime.errors import UnreadableError, UserError
from . import draws
from .augment import TrainTransform
from .corrupt import SubstitutingReader
from .folder import ImageFolder
from .mix import BatchTransform
from .order import Shard, TrainingRows, steps_per_epoch
from .preprocess import EvalTransform, silence_pillow

# A forked worker must not collect its parent's garbage: it dies of stopping a dataset iterator
# whose threads it has not inherited, and MindSpore then waits for it for ever.
os.register_at_fork(before=gc.freeze, after_in_parent=gc.unfreeze)

# Images that a worker loads at once, at most: each handover between worker and engine has its cost.
IMAGES_AT_ONCE = 8


@dataclass(frozen=True)
class _LoadTraining:
    """Rows (K, 3) of epoch, step, image → (K, C, H, W) uint8, labels (K,), and the rows again."""

    folder: ImageFolder
    transform: TrainTransform
    seed: int
    rank: int
    reader: SubstitutingReader[Image.Image] | None

    def __call__(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        loaded = [self._load(epoch, image) for epoch, _, image in rows.tolist()]
        images, labels = zip(*loaded, strict=True)
        return np.stack(images), np.array(labels), rows

    def _load(self, epoch: int, image: int) -> tuple[np.ndarray, np.int32]:
        rng = draws.generator(draws.IMAGE, self.seed, self.rank, epoch, image)
        if self.reader is None:
            opened = self.folder.read(image, len(self.transform.mean))
        else:
            opened, image = self.reader.open(epoch, image)
        return self.transform(opened, rng), self.folder.labels[image]


def drop_path_scales(
    rates: Sequence[float], batch_size: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw which residual branches a training step drops, per sample (arXiv 1603.09382).

    Gives (len(rates), 2, batch_size) float32, two branches for the rate of each block: 0 where the
    branch is dropped, 1 / (1 - rate) where it is kept.
    """
    keep = 1.0 - np.asarray(rates, np.float64)[:, None, None]
    kept = rng.random((len(rates), 2, batch_size)) < keep
    return (kept / keep).astype(np.float32)


@dataclass(frozen=True)
class _FinishBatch:
    """uint8 images (M, K, C, H, W), labels and rows of a batch of M times K → what a step takes."""

    transform: BatchTransform
    drop_path_rates: tuple[float, ...]
    seed: int
    rank: int

    def __call__(
        self, images: np.ndarray, labels: np.ndarray, rows: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        images, labels = images.reshape(-1, *images.shape[2:]), labels.reshape(-1)
        epoch, step, _ = rows[0, 0].tolist()
        rng = draws.generator(draws.BATCH, self.seed, self.rank, epoch, step)
        images, targets = self.transform(images, labels, rng)
        if not any(self.drop_path_rates):
            return images, targets
        rng = draws.generator(draws.DROP_PATH, self.seed, self.rank, epoch, step)
        return images, targets, drop_path_scales(self.drop_path_rates, len(images), rng)


def training_dataset(
    folder: ImageFolder,
    transform: TrainTransform,
    batch_transform: BatchTransform,
    *,
    batch_size: int,
    shard: Shard,
    seed: int,
    shuffle: bool,
    drop_remainder: bool,
    epochs: int,
    num_parallel_workers: int,
    python_multiprocessing: bool,
    drop_path_rates: tuple[float, ...] = (),
    start_step: int = 0,
    steps: int | None = None,
    corrupt_log: Path | None = None,
) -> ds.Dataset:
    """All batches of a training run as one stream, without a restart between epochs.

    Args:
        folder: the training images.
        transform: of each image.
        batch_transform: of each batch.
        batch_size: images per batch and rank.
        shard: the part that this process reads.
        seed: the run's seed, the same on every rank.
        shuffle: draw a new order each epoch.
        drop_remainder: leave out an epoch's last, incomplete batch; otherwise it is filled from
            the beginning of the epoch's order.
        epochs: of the whole run.
        num_parallel_workers: that decode and augment images, at most; a machine with fewer cores
            takes as many as it has, and rank 0 says so.
        python_multiprocessing: run them as processes instead of threads.
        drop_path_rates: of each block of the network.
        start_step: batches of the run already seen; the stream is that of step 0 without them.
        steps: of the whole run, which may end within the last epoch; None for whole epochs.
        corrupt_log: list an image that cannot be read in this file and take another in its place,
            see SubstitutingReader; None stops at the first.

    Returns:
        Columns `images` (N, C, H, W) float32, `targets` (N, K) float32 and, if a drop path rate
        is above 0, `drop_path`, see drop_path_scales.

    Raises:
        UserError: too few images. An image that cannot be read stops the iteration instead, see
            worker_error.
    """
    prepare_engine()
    workers = usable_workers(num_parallel_workers, shard.rank == 0)
    per_epoch = steps_per_epoch(len(folder), batch_size, shard.size, drop_remainder)
    size = len(folder)
    rows = TrainingRows(size, batch_size, shard, seed, shuffle, per_epoch, epochs, start_step)
    reader = None
    if corrupt_log:
        read = partial(folder.read, channels=len(transform.mean))
        reader = SubstitutingReader(folder, read, seed, corrupt_log)
    at_once = math.gcd(batch_size, IMAGES_AT_ONCE)
    dataset = ds.GeneratorDataset(rows, ["rows"], shuffle=False, python_multiprocessing=False)
    drop_path = ["drop_path"] if any(drop_path_rates) else []
    batches = (per_epoch * epochs if steps is None else steps) - start_step
    loads = dataset.batch(at_once, drop_remainder=True, num_parallel_workers=1)
    return loaded_batches(
        first_rows(loads, batches * (batch_size // at_once)),
        _LoadTraining(folder, transform, seed, shard.rank, reader),
        ["images", "labels", "rows"],
        _FinishBatch(batch_transform, drop_path_rates, seed, shard.rank),
        ["images", "targets", *drop_path],
        batch_size // at_once,
        workers,
        python_multiprocessing,
    )


def first_rows(dataset: ds.Dataset, count: int) -> ds.Dataset:
    """Give a data set's first rows; all of them where a run is done, which takes none."""
    return dataset.take(count) if count else dataset


def loaded_batches(
    rows: ds.Dataset,
    load: Callable[[np.ndarray], tuple[np.ndarray, ...]],
    loaded: list[str],
    finish: Callable[..., tuple[np.ndarray, ...]],
    finished: list[str],
    loads_per_batch: int,
    workers: int,
    python_multiprocessing: bool,
) -> ds.Dataset:
    """Batches of what `load` makes of `rows`, in the order of these, each as `finish` gives it.

    Args:
        rows: a column `rows`, of as many at a time as one call of `load` takes.
        load: of the rows; runs on all workers.
        loaded: names of what it gives.
        finish: of a whole batch, (loads_per_batch, ...) each.
        finished: names of what it gives.
        loads_per_batch: calls of `load` that make a batch.
        workers: that load.
        python_multiprocessing: run them as processes instead of threads.
    """
    dataset = rows.map(
        load,
        input_columns=["rows"],
        output_columns=loaded,
        num_parallel_workers=workers,
        python_multiprocessing=python_multiprocessing,
    ).batch(loads_per_batch, drop_remainder=True)
    # Threads in any case: NumPy releases the GIL here, and batches are too large to pass around.
    return dataset.map(
        finish,
        input_columns=loaded,
        output_columns=finished,
        num_parallel_workers=min(workers, 2),
    )


@dataclass(frozen=True)
class _LoadEvaluation:
    """Image number, -1 for padding → (C, H, W) float32 and label, zeros and -1 for padding."""

    folder: ImageFolder
    transform: EvalTransform

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.integer]:
        channels, size = len(self.transform.mean), self.transform.image_size
        if image < 0:
            return np.zeros((channels, size, size), dtype=np.float32), np.int32(-1)
        opened = self.folder.read(int(image), channels)
        return self.transform(opened), self.folder.labels[image]


def evaluation_dataset(
    folder: ImageFolder,
    transform: EvalTransform,
    *,
    batch_size: int,
    shard: Shard,
    num_parallel_workers: int,
) -> ds.Dataset:
    """Every image exactly once over all ranks, in full batches of which every rank has as many.

    Takes its arguments, and raises, as training_dataset.

    Returns:
        Columns `images` (batch_size, C, H, W) float32 and `labels` (batch_size,) int32, where -1
        marks padding.
    """
    prepare_engine()
    workers = usable_workers(num_parallel_workers, shard.rank == 0)
    batches = steps_per_epoch(len(folder), batch_size, shard.size, drop_remainder=False)
    slots = np.full(batches * batch_size * shard.size, -1)
    slots[: len(folder)] = np.arange(len(folder))
    load = _LoadEvaluation(folder, transform)
    images = slots[shard.rank :: shard.size]
    loads = each_loaded(images, load, ["images", "labels"], workers)
    return loads.batch(batch_size, drop_remainder=True)


def each_loaded(
    numbers: Iterable[int],
    load: Callable[[np.ndarray], tuple[np.ndarray | np.integer, ...]],
    loaded: list[str],
    workers: int,
) -> ds.Dataset:
    """What `load` makes of each number, in the order of these.

    Args:
        numbers: of images.
        load: of a number, an array without axes; runs on all workers.
        loaded: names of what it gives.
        workers: that load.
    """
    dataset = ds.GeneratorDataset(
        [(np.array(number),) for number in numbers],
        ["numbers"],
        shuffle=False,
        python_multiprocessing=False,
    )
    # Threads, which are faster here: nearly all the work is Pillow's and NumPy's, without the GIL.
    # A fork while the training stream runs may hang, up to Python 3.11.7 (CPython issue 112275).
    return dataset.map(
        load,
        input_columns=["numbers"],
        output_columns=loaded,
        num_parallel_workers=workers,
        python_multiprocessing=False,
    )


@cache  # said once for the streams of a run that ask for the same number
def usable_workers(asked: int, speaks: bool) -> int:
    """The number of data workers, of which MindSpore takes no more than the machine has cores."""
    cores = cpu_count()
    if asked > cores and speaks:
        tqdm.write(f"num_parallel_workers: {cores} instead of {asked}, all of this machine's cores")
    return min(asked, cores)


def prepare_engine() -> None:
    """Set what holds for every stream of this process, before the first is made."""
    silence_pillow()
    # Rows that wait between two operations and, here, whole batches: MindSpore's 16 would hold
    # some 6 GB per rank for batches of 128 at 224 pixels.
    ds.config.set_prefetch_size(4)


def batches(dataset: ds.Dataset) -> Iterator[tuple[Tensor, ...]]:
    """Iterate over a data set once.

    Raises:
        UserError: an image cannot be read.
    """
    iterator = dataset.create_tuple_iterator(num_epochs=1)
    while True:
        try:
            with workers_mistakes():
                batch = next(iterator)
        except StopIteration:
            return
        yield tuple(batch)


@contextlib.contextmanager
def workers_mistakes() -> Iterator[None]:
    """Raise the UserError of a data worker as itself, out of what MindSpore makes of it."""
    try:
        yield
    except RuntimeError as error:
        raise worker_error(error) or error from None


def worker_error(error: RuntimeError) -> UserError | None:
    """Find the UserError of a data worker in what MindSpore made of it.

    MindSpore raises a RuntimeError whose text embeds the worker's traceback; its last line that
    names UserError, or the kind of it that files have, in full carries our message. None if the
    error has another cause.
    """
    names = (
        re.escape(f"{kind.__module__}.{kind.__qualname__}") for kind in (UserError, UnreadableError)
    )
    matched = re.search(rf"^(?:{'|'.join(names)}): (.+)$", str(error), re.MULTILINE)
    return UserError(matched[1]) if matched else None
