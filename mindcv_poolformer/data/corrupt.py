"""Training images that cannot be read: others in their place, and a list that tells of them.

Each data worker replaces and lists what it meets; the main process reads the list.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from ..runtime.collectives import barrier
from ..runtime.errors import UserError
from ..runtime.launch import World
from . import draws
from .folder import ImageFolder
from .preprocess import open_image

LIST = "corrupt_images.txt"
TOLERATED_PERCENT = 1
# Substitutes that fail, too, before a worker gives up: with 1 % of all corrupt it never happens.
ATTEMPTS = 10


@dataclass(frozen=True)
class SubstitutingReader:
    """Reads training images, and a random other one in the place of each that cannot be read.

    Args:
        folder: the training images.
        channels: of an image, see open_image.
        seed: of the run; it, epoch and image alone decide the substitute.
        list_path: file that gets a line `path<TAB>reason` for each image that cannot be read.
    """

    folder: ImageFolder
    channels: int
    seed: int
    list_path: Path
    _listed: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def open(self, epoch: int, image: int) -> tuple[Image.Image, int]:
        """Read image number `image`, or its substitute of this epoch; give its number, too.

        Raises:
            UserError: the substitutes cannot be read either; the list cannot be written.
        """
        rng = draws.generator(draws.SUBSTITUTE, self.seed, epoch, image)
        for _ in range(1 + ATTEMPTS):
            path = self.folder.paths[image]
            try:
                return open_image(path, self.channels), image
            except UserError as error:
                reason = _reason(error, path)
            self._list(path, reason)
            image = int(rng.integers(len(self.folder)))
        raise UserError(
            f"on_corrupt: found {1 + ATTEMPTS} images in a row that cannot be read, the last "
            f"{path} ({reason}), expected at most {TOLERATED_PERCENT} % of "
            f"{self.folder.root}; {_look(self.folder.root)}"
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


def why_unreadable(path: str) -> str | None:
    """What open_image says of an image that it cannot read, without the name; None if it can."""
    try:
        open_image(path)
    except UserError as error:
        return _reason(error, path)
    return None


def _reason(error: UserError, path: str) -> str:
    return str(error).removeprefix(f"image {path} ")


class CorruptImages:
    """The list of a run's corrupt images, as the main process reads it.

    Args:
        run_folder: whose file LIST the data workers write to.
        root: of the training images.
        count: how many these are.
    """

    def __init__(self, run_folder: Path, root: Path, count: int) -> None:
        self.path = run_folder / LIST
        self._root = root
        self._images = count
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
        count = len(self.found())
        if 100 * count > TOLERATED_PERCENT * self._images:
            self._repaired |= {path for path in self.found() if why_unreadable(path) is None}
            count = len(self.found())
        if 100 * count > TOLERATED_PERCENT * self._images:
            raise UserError(
                f"on_corrupt: found {count:,} of {self._images:,} training images "
                f"({100 * count / self._images:.2f} %) that cannot be read, listed in {self.path}, "
                f"expected at most {TOLERATED_PERCENT} %; {_look(self._root)}"
            )
        return count

    def summary(self) -> list[str]:
        """One line for the end of a run, none if all images could be read."""
        count = len(self.found())
        if not count:
            return []
        images = "1 training image was" if count == 1 else f"{count:,} training images were"
        return [f"{images} corrupt and replaced by others: {self.path}"]


def _look(root: Path) -> str:
    return f"look with python -m mindcv_poolformer.data check {root}"
