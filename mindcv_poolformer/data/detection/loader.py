"""Batches of pictures with objects through MindSpore's dataset engine, each in a fixed shape.

What :mod:`data.loader` says of draws, workers and restarts holds here too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import mindspore.dataset as ds
import numpy as np

from ...runtime.counted import counted
from ...runtime.errors import UnreadableError, UserError
from .. import draws
from ..corrupt import SubstitutingReader
from ..fitting import DIVISOR
from ..loader import each_loaded, first_rows, loaded_batches, prepare_engine, usable_workers
from ..order import Shard
from .coco import Annotated, CocoPictures
from .fitting import EvalTransform, padded, scale_factors
from .order import GroupedRows, wider_than_high
from .transforms import TrainTransform

CANVAS = (800, 1344)


@dataclass(frozen=True, eq=False)
class _Group:
    """The pictures that may stand in for each other, since they go on the same canvas.

    Args:
        pictures: all of them.
        members: (n,) int64, the group's, in ascending order.
    """

    pictures: CocoPictures
    members: np.ndarray

    @property
    def root(self) -> Path:
        return self.pictures.root

    @property
    def check_words(self) -> str:
        return self.pictures.check_words

    def __len__(self) -> int:
        return len(self.members)

    def files(self, index: int) -> tuple[str, ...]:
        return self.pictures.files(int(self.members[index]))

    def read(self, index: int) -> Annotated:
        return self.pictures.read(int(self.members[index]))


class _Substituting:
    """Reads pictures, and in the place of one that cannot be read another of its group."""

    def __init__(self, pictures: CocoPictures, wide: np.ndarray, seed: int, log: Path) -> None:
        self._wide = wide
        groups = [_Group(pictures, np.flatnonzero(wide == which)) for which in (False, True)]
        self._readers = [SubstitutingReader(group, group.read, seed, log) for group in groups]
        self._members = [group.members for group in groups]

    def read(self, epoch: int, picture: int) -> tuple[Annotated, int]:
        """Give a picture, or its substitute of this epoch, and the number of what is given."""
        which = int(self._wide[picture])
        members = self._members[which]
        place = int(np.searchsorted(members, picture))
        annotated, place = self._readers[which].open(epoch, place)
        return annotated, int(members[place])


@dataclass(frozen=True, eq=False)
class _LoadTraining:
    """Rows (1, 3) of epoch, step, picture → what is on a canvas, and the rows again."""

    pictures: CocoPictures
    transform: TrainTransform
    canvas: tuple[int, int]
    objects: int
    wide: np.ndarray
    seed: int
    rank: int
    substituting: _Substituting | None

    def __call__(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        ((epoch, _, picture),) = rows.tolist()
        rng = draws.generator(draws.IMAGE, self.seed, self.rank, epoch, picture)
        canvas = self.canvas if self.wide[picture] else self.canvas[::-1]
        if self.substituting is None:
            annotated = self.pictures.read(picture)
        else:
            annotated, picture = self.substituting.read(epoch, picture)
        height, width = annotated.pixels.shape[:2]
        draw = self.transform.draw(height, width, rng)
        try:
            image = padded(self.transform.image(annotated.pixels, draw), canvas)
        except UserError as error:
            raise UserError(f"image {self.pictures.files(picture)[0]}: {error}") from None
        boxes = np.zeros((self.objects, 4), np.float32)
        labels = np.full(self.objects, -1, np.int32)
        count = len(annotated.labels)
        boxes[:count] = self.transform.boxes(annotated.boxes, draw)
        labels[:count] = annotated.labels
        found = [image, boxes, labels, np.array(draw.size, np.int32)]
        if annotated.masks is not None:
            masks = np.zeros((self.objects, canvas[0], canvas[1] // 8), np.uint8)
            # Eight pixels a byte, on their way between processes.
            packed = np.packbits(self.transform.masks(annotated.masks, draw), axis=2)
            masks[:count, : packed.shape[1], : packed.shape[2]] = packed
            found.append(masks)
        return (*(array[None] for array in found), rows)


@dataclass(frozen=True)
class _FinishBatch:
    """What is on each canvas of a batch, (N, 1, …) each → what a step takes."""

    transform: TrainTransform
    sampling: tuple[int, ...]
    seed: int
    rank: int

    def __call__(self, *columns: np.ndarray) -> tuple[np.ndarray, ...]:
        images, boxes, labels, sizes, *masks, rows = (
            column.reshape(-1, *column.shape[2:]) for column in columns
        )
        masks = [np.unpackbits(packed, axis=-1) for packed in masks]
        rng = draws.generator(draws.SAMPLING, self.seed, self.rank, int(rows[0, 1]))
        drawn = [rng.random((len(images), count), np.float32) for count in self.sampling]
        return self.transform.finish(images, sizes), boxes, labels, sizes, *masks, *drawn


def training_batches(
    pictures: CocoPictures,
    transform: TrainTransform,
    *,
    batch_size: int,
    shard: Shard,
    seed: int,
    steps: int,
    num_parallel_workers: int,
    python_multiprocessing: bool,
    canvas: tuple[int, int] = CANVAS,
    max_objects: int | None = None,
    sampling: tuple[int, ...] = (),
    start_step: int = 0,
    corrupt_log: Path | None = None,
) -> ds.Dataset:
    """All batches of a training run as one stream, each of wide pictures or of others alone.

    Pictures are padded to a canvas, at the right and at the bottom, so that there are two shapes.
    The official detectors pad to the largest picture of a batch; norms see what is padded.

    Args:
        pictures: to train on.
        transform: of each picture.
        batch_size: pictures per batch and rank.
        shard: the part that this process reads.
        seed: the run's seed, the same on every rank.
        steps: of the whole run, which may end within an epoch.
        num_parallel_workers: that decode and augment pictures, at most; a machine with fewer cores
            takes as many as it has, and rank 0 says so.
        python_multiprocessing: run them as processes instead of threads.
        canvas: height and width of what wide pictures are padded to; the others' is it turned.
        max_objects: G, room for objects in each picture; None for as many as the fullest has.
        sampling: how many draws each picture gets to sample anchors, proposals and such by, a
            column for each number.
        start_step: batches of the run already seen; the stream is that of step 0 without them.
        corrupt_log: list a picture that cannot be read in this file and take another in its place,
            see SubstitutingReader; None stops at the first.

    Returns:
        Columns `images` (N, 3, H, W) float32, `boxes` (N, G, 4) float32, x and y of two corners in
        pixels, `labels` (N, G) int32, -1 where there is no object, `sizes` (N, 2) int32, height
        and width of each picture without the padding, whose transforms.padded_size is that of the
        valid anchors, and, if `pictures` have masks, `masks` (N, G, H, W) uint8, 1 on the object,
        else 0; then `draws0` and so on, (N, n) float32 from 0 up to 1, without 1.

    Raises:
        UserError: `canvas` or `max_objects` are too small. A picture that cannot be read stops the
            iteration instead, see loader.worker_error.
    """
    prepare_engine()
    check_canvas(canvas, transform.img_scale)
    objects = max(1, pictures.most_objects) if max_objects is None else max_objects
    if objects < pictures.most_objects:
        raise UserError(
            f"max_objects: found {objects} with a picture of "
            f"{counted(pictures.most_objects, 'object')} in "
            f"{pictures.file.path}, expected at least as many"
        )
    workers = usable_workers(num_parallel_workers, shard.rank == 0)
    wide = wider_than_high(pictures.sizes)
    rows = GroupedRows(wide, batch_size, shard, seed, 0, start_step)
    epochs = math.ceil(steps / rows.steps_per_epoch)
    rows = GroupedRows(wide, batch_size, shard, seed, epochs, start_step)
    substituting = _Substituting(pictures, wide, seed, corrupt_log) if corrupt_log else None
    dataset = ds.GeneratorDataset(rows, ["rows"], shuffle=False, python_multiprocessing=False)
    finished = ["images", "boxes", "labels", "sizes", *(["masks"] if pictures.masks else [])]
    loaded = [*finished, "rows"]
    finished += [f"draws{place}" for place in range(len(sampling))]
    return loaded_batches(
        first_rows(dataset.batch(1, num_parallel_workers=1), (steps - start_step) * batch_size),
        _LoadTraining(pictures, transform, canvas, objects, wide, seed, shard.rank, substituting),
        loaded,
        _FinishBatch(transform, sampling, seed, shard.rank),
        finished,
        batch_size,
        workers,
        python_multiprocessing,
    )


def check_canvas(canvas: tuple[int, int], img_scale: tuple[int, int]) -> None:
    """Refuse a canvas that some wide pictures do not fit on, or that no network takes.

    Raises:
        UserError: it is one.
    """
    height, width = canvas
    if height < min(img_scale) or width < max(img_scale) or height % DIVISOR or width % DIVISOR:
        raise UserError(
            f"canvas: found {height} x {width} for pictures of up to {min(img_scale)} x "
            f"{max(img_scale)} pixels, expected multiples of {DIVISOR} that hold them"
        )


@dataclass(frozen=True, eq=False)
class _LoadEvaluation:
    """Number of a picture → what the network takes, and what undoes it."""

    pictures: CocoPictures
    transform: EvalTransform
    canvas: tuple[int, int] | None

    def __call__(self, number: np.ndarray) -> tuple[np.ndarray, ...]:
        index = int(number)
        height, width = self.pictures.sizes[index].tolist()
        canvas = self.canvas
        if canvas is not None and width <= height:
            canvas = canvas[::-1]
        try:
            image, size = self.transform(self.pictures.pixels(index), canvas)
        except UserError as error:
            if isinstance(error, UnreadableError):
                raise
            raise UserError(f"image {self.pictures.files(index)[0]}: {error}") from None
        return (
            image,
            np.array(size, np.int32),
            scale_factors(height, width, size),
            number.astype(np.int32),
        )


def evaluation_batches(
    pictures: CocoPictures,
    transform: EvalTransform,
    *,
    shard: Shard,
    num_parallel_workers: int,
    canvas: tuple[int, int] | None = None,
) -> ds.Dataset:
    """Every picture exactly once over all ranks, one at a time.

    Ranks may have a different number of pictures. Takes its arguments, and raises, as
    training_batches; a rank must have at least one picture.

    Args:
        canvas: pad as training_batches does, for two shapes alone; None for the official way, a
            size of its own for each picture, of which the numbers differ.

    Returns:
        Columns `images` (1, 3, h, w) float32, `sizes` (1, 2) int32, height and width of the
        picture in it without the padding, `scale_factors` (1, 4) float32, what boxes are divided
        by to be those of the picture itself, and `numbers` (1,) int32, its index in `pictures`.
    """
    prepare_engine()
    if canvas is not None:
        check_canvas(canvas, transform.img_scale)
    workers = usable_workers(num_parallel_workers, shard.rank == 0)
    if len(pictures) < shard.size:
        raise UserError(
            f"{pictures.file.path}: found {counted(len(pictures), 'picture')} for {shard.size} "
            "ranks, expected at least one each"
        )
    load = _LoadEvaluation(pictures, transform, canvas)
    own = range(shard.rank, len(pictures), shard.size)
    return each_loaded(own, load, ["images", "sizes", "scale_factors", "numbers"], workers).batch(1)
