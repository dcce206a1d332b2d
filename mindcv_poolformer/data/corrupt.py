"""Training images and scenes that cannot be read: others in their place, and a list of them.

Each data worker replaces and lists what it meets; the main process reads the list.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from ..config import Recipe
from ..runtime.collectives import barrier
from ..runtime.counted import counted
from ..runtime.errors import UnreadableError, UserError
from ..runtime.launch import World
from . import draws

LIST = "corrupt_images.txt"
TOLERATED_PERCENT = 1
# Substitutes that fail, too, before a worker gives up: with 1 % of all corrupt it never happens.
ATTEMPTS = 10


Read = TypeVar("Read")


class TrainingFiles(Protocol):
    """Training images, each in a file, or in several such as a picture and its label."""

    @property
    def root(self) -> Path:
        """The folder that they lie in."""

    @property
    def check_words(self) -> str:
        """What `data check` is to be given to look at them."""

    def __len__(self) -> int: ...

    def files(self, index: int) -> tuple[str, ...]:
        """Give the paths of an image's files."""

    def read(self, index: int) -> object:
        """Read an image.

        Raises:
            UnreadableError: of one of its files.
        """


@dataclass(frozen=True)
class SubstitutingReader(Generic[Read]):
    """Reads training images, and a random other one in the place of each that cannot be read.

    Args:
        folder: the training images.
        read: gives the one of a number, or raises an UnreadableError.
        seed: of the run; it, epoch and image alone decide the substitute.
        list_path: file that gets a line `path<TAB>reason` for each file that cannot be read.
    """

    folder: TrainingFiles
    read: Callable[[int], Read]
    seed: int
    list_path: Path
    _listed: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def open(self, epoch: int, image: int) -> tuple[Read, int]:
        """Read image number `image`, or its substitute of this epoch; give its number, too.

        Raises:
            UserError: the substitutes cannot be read either; the list cannot be written.
        """
        rng = draws.generator(draws.SUBSTITUTE, self.seed, epoch, image)
        for _ in range(1 + ATTEMPTS):
            try:
                return self.read(image), image
            except UnreadableError as error:
                path, reason = error.path, error.reason
            self._list(path, reason)
            image = int(rng.integers(len(self.folder)))
        raise UserError(
            f"on_corrupt: found {1 + ATTEMPTS} images in a row that cannot be read, the last "
            f"{path} ({reason}), expected at most {TOLERATED_PERCENT} % of "
            f"{self.folder.root}; {_look(self.folder)}"
        )

    def _list(self, path: str, reason: str) -> None:
        if path in self._listed:
            return
        self._listed.add(path)
        try:
            self.list_path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.list_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:  # one write: the lines of several processes do not mix
                os.write(file, os.fsencode(f"{path}\t{reason}\n"))
            finally:
                os.close(file)
        except OSError as error:
            raise UserError(f"{self.list_path}: cannot be written: {error.strerror}") from None


def list_of(recipe: Recipe) -> Path | None:
    """The file in which a run lists its corrupt images, None where it stops at the first."""
    if recipe.data.on_corrupt != "skip":
        return None
    return Path(recipe.checkpointing.ckpt_save_dir) / LIST


class CorruptImages:
    """The list of a run's corrupt images, as the main process reads it.

    Args:
        run_folder: whose file LIST the data workers write to.
        folder: the training images.
    """

    def __init__(self, run_folder: Path, folder: TrainingFiles) -> None:
        self.path = run_folder / LIST
        self._folder = folder
        self._repaired: set[str] = set()

    def start_anew(self, world: World) -> None:
        """Remove the list of an earlier start, before any rank's data workers begin.

        Every rank calls it; they wait for each other.
        """
        if world.is_main:
            self.path.unlink(missing_ok=True)
        barrier(world.size)

    def found(self) -> dict[str, str]:
        """Give path and reason of each corrupt image met so far by a data worker of the run."""
        try:
            content = os.fsdecode(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        # Several workers may list the same image, each for itself.
        lines = (line.rpartition("\t") for line in content.split("\n")[:-1])
        return {path: reason for path, _, reason in lines if path not in self._repaired}

    def check(self) -> int:
        """Give the number of corrupt images met so far.

        Raises:
            UserError: more than TOLERATED_PERCENT of the training images are corrupt, still: a run
                that goes on may have them listed from before they were repaired.
        """
        count, images = len(self.found()), len(self._folder)
        if 100 * count > TOLERATED_PERCENT * images:
            self._repaired |= self._readable(self.found().keys())
            count = len(self.found())
        if 100 * count > TOLERATED_PERCENT * images:
            raise UserError(
                f"on_corrupt: found {count:,} of {counted(images, 'training image')} "
                f"({100 * count / images:.2f} %) that cannot be read, listed in {self.path}, "
                f"expected at most {TOLERATED_PERCENT} %; {_look(self._folder)}"
            )
        return count

    def _readable(self, paths: Set[str]) -> set[str]:
        """Those of some files whose images can be read now."""
        readable: set[str] = set()
        places = {os.path.abspath(path): path for path in paths}  # `data_dir` may be spelled anew
        for index in range(len(self._folder)):
            files = map(os.path.abspath, self._folder.files(index))
            if listed := {places[file] for file in files if file in places}:
                with contextlib.suppress(UnreadableError):
                    self._folder.read(index)
                    readable |= listed
        return readable

    def summary(self) -> list[str]:
        """One line for the end of a run, none if all images could be read."""
        count = len(self.found())
        if not count:
            return []
        images = "1 training image was" if count == 1 else f"{count:,} training images were"
        return [f"{images} corrupt and replaced by others: {self.path}"]


def _look(folder: TrainingFiles) -> str:
    return f"look with python -m mindcv_poolformer.data check {folder.check_words}"
