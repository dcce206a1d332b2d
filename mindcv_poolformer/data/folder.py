"""Folders of images in ImageNet's layout: one subfolder per class."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

import numpy as np
from PIL import Image

from ..runtime.counted import counted
from ..runtime.errors import UserError
from .preprocess import open_image

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# What macOS, Windows, Linux, network storage and Python put into folders, beside dotted names; in
# small letters, since each system has its own. What was deleted lies in some, and is no class.
_SYSTEM = {"__macosx", "$recycle.bin", "system volume information", "lost+found", "__pycache__"}
_SYSTEM |= {"@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"}

OTHER = "other endings"
HIDDEN = "hidden"
LOOP = "loop"
SPECIAL = "special"
NOWHERE = "nowhere"
BESIDE = "beside"
_TOLD = {  # in this order, of one and of several
    OTHER: ("file with other endings", "files with other endings"),
    HIDDEN: ("hidden or system name", "hidden or system names"),
    LOOP: ("link to a folder that it is in", "links to folders that they are in"),
    SPECIAL: ("pipe, socket or device", "pipes, sockets or devices"),
    NOWHERE: ("link to nothing", "links to nothing"),
    BESIDE: ("image beside the class folders", "images beside the class folders"),
}


class LeftOut:
    """What lies in a folder and is not read, by kind: how many of it, and the first one's name.

    Args:
        root: the folder; names are told within it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._counts: dict[str, int] = {}
        self._first: dict[str, str] = {}

    def add(self, kind: str, path: str) -> None:
        """Count one more."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        self._first.setdefault(kind, os.path.relpath(path, self.root))

    def __str__(self) -> str:
        """Such as "2 files with other endings, 1 hidden or system name (.cache)"; may be empty."""
        parts = []
        for kind, (one, several) in _TOLD.items():
            if count := self._counts.get(kind, 0):
                more = ", …" if count > 1 else ""
                name = "" if kind == OTHER else f" ({self._first[kind]}{more})"
                parts.append(f"{counted(count, one, several)}{name}")
        return ", ".join(parts)


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """The images below `root` in a fixed order, with `labels[i]` an index into `classes`."""

    root: Path
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    labels: np.ndarray  # (len(paths),) int32
    notes: tuple[str, ...] = field(default=())  # a line each: what was left out, what looks odd

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def check_words(self) -> str:
        """What `data check` is to be given to look at the images."""
        return str(self.root)

    def files(self, index: int) -> tuple[str, ...]:
        """Give the path of an image."""
        return (self.paths[index],)

    def read(self, index: int, channels: int = 3) -> Image.Image:
        """Read an image.

        Raises:
            UnreadableError: as :func:`open_image`.
        """
        return open_image(self.paths[index], channels)

    def named_labels(self) -> Iterator[tuple[str, int]]:
        """Give each image's path within the folder, and its label."""
        for path, label in zip(self.paths, self.labels, strict=True):
            yield os.path.relpath(path, self.root), int(label)


def scan_folder(root: str | Path, classes: Sequence[str] | None = None) -> ImageFolder:
    """List the images of `<root>/<class>/**`, sorted by name.

    Hidden and system names are neither classes nor images. A class has its folder's name, in which
    bytes that are not UTF-8 are written as in `caf\\xe9`.

    Args:
        root: folder with one subfolder per class.
        classes: class names that fix the labels, usually those of the training set; some may have
            no folder here. By default the sorted names of the class folders.

    Raises:
        UserError: `root` is missing, not a folder or not readable, has no class folder, has one
            without an image, or has one that `classes` lacks; or without `classes` its only folder
            holds folders alone.
    """
    root = Path(root)
    if not root.exists():
        raise UserError(f"image folder {root} does not exist; expected <folder>/<class>/<image>")
    if not root.is_dir():
        raise UserError(f"image folder {root} is not a folder; expected <folder>/<class>/<image>")
    left_out = LeftOut(root)
    content = _list(_Place.of(root), left_out)
    for path in content.images:
        left_out.add(BESIDE, path)
    if not content.folders:
        beside = f" but {counted(len(content.images), 'image')}" if content.images else ""
        raise UserError(
            f"image folder {root} holds no class folder{beside}; expected one per class"
        )
    found = dict(sorted(((class_name(p.path), p) for p in content.folders), key=itemgetter(0)))
    if len(found) < len(content.folders):
        raise UserError(f"image folder {root} holds two folders of one name once it is UTF-8")
    names = tuple(found if classes is None else classes)
    index_of = {name: index for index, name in enumerate(names)}
    paths: list[str] = []
    labels: list[int] = []
    inner: list[set[str]] = []
    for name, place in found.items():
        if name not in index_of:
            raise UserError(
                f"class folder {place.path} is not among the {len(names)} training classes"
            )
        images = _images_below(place, left_out)
        if not images:
            raise UserError(
                f"class folder {place.path} holds no image; expected {' '.join(IMAGE_EXTENSIONS)}"
            )
        paths += images
        labels += [index_of[name]] * len(images)
        inner.append(_inner_folders(place, images))
    notes = [f"{root}: {left_out} ignored"] if str(left_out) else []
    # Where no class folder holds an image itself, those in it may be the classes.
    shared = sorted(set.intersection(*inner)) if not any("" in one for one in inner) else []
    if shared and len(found) == 1 and classes is None:
        raise UserError(
            f"image folder {root}: found 1 class, {next(iter(found))}, with the folders "
            f"{_named(shared)} in it, expected two or more: is it a level too high?"
        )
    if len(shared) > 1 and len(found) > 1:
        notes.append(
            f"{root}: each of its {len(found)} class folders holds the folders {_named(shared)}, "
            "and no image beside them: is it a level too high?"
        )
    return ImageFolder(root, names, tuple(paths), np.array(labels, dtype=np.int32), tuple(notes))


def class_name(folder: str | Path) -> str:
    """The class that a folder's name stands for: UTF-8, since it goes into JSON, pages and graphs.

    A byte of another encoding is written as in `caf\\xe9`.
    """
    return os.fsencode(os.path.basename(folder)).decode("utf-8", "backslashreplace")


def class_folders(root: Path) -> list[str]:
    """The class names of `<root>/<class>`, as scan_folder has them; without a look at the images.

    Raises:
        UserError: `root` cannot be read.
    """
    content = _list(_Place.of(root), LeftOut(root))
    return sorted(class_name(place.path) for place in content.folders)


def find_images(places: Sequence[str | Path]) -> list[Path]:
    """List image files: each place itself, or the images anywhere below it, sorted, if a folder.

    Raises:
        UserError: a folder holds no image.
    """
    paths: list[Path] = []
    for place in map(Path, places):
        paths += map(Path, files_below(place)[0]) if place.is_dir() else [place]
    return paths


def files_below(folder: Path) -> tuple[list[str], LeftOut]:
    """List the image files anywhere below a folder, sorted, and what is left out there.

    Raises:
        UserError: a folder cannot be read, or there is no image.
    """
    left_out = LeftOut(folder)
    images = _images_below(_Place.of(folder), left_out)
    if not images:
        endings = " ".join(IMAGE_EXTENSIONS)
        ignored = f"; {left_out} ignored" if str(left_out) else ""
        raise UserError(f"{folder}: found no image in the folder, expected {endings}{ignored}")
    return images, left_out


@dataclass(frozen=True)
class _Place:
    """A folder as it is reached: its path, what that leads to, and every folder above both.

    A link to one of the latter would lead here again, and is not followed.
    """

    path: str
    real: str
    above: frozenset[str]

    @classmethod
    def of(cls, folder: Path) -> _Place:
        absolute = folder.absolute()
        reals = [os.path.realpath(place) for place in (absolute, *absolute.parents)]
        return cls(str(folder), reals[0], frozenset(up for real in reals for up in _upwards(real)))

    def enter(self, entry: os.DirEntry[str]) -> _Place | None:
        """The folder or link to a folder in this one, None if the link leads to one above."""
        if not entry.is_symlink():
            real = os.path.join(self.real, entry.name)
            return _Place(entry.path, real, self.above | {real})
        real = os.path.realpath(entry.path)
        if real in self.above:
            return None
        return _Place(entry.path, real, self.above.union(_upwards(real)))


def _upwards(real: str) -> list[str]:
    return [real, *map(str, Path(real).parents)]


@dataclass(frozen=True)
class _Content:
    """What is in a folder itself, sorted by name."""

    folders: list[_Place]
    images: list[str]


def _list(place: _Place, left_out: LeftOut) -> _Content:
    """Look into a folder, the only place that decides what counts.

    A link to nothing with the name of an image counts: its image is missing.

    Raises:
        UserError: the folder cannot be read.
    """
    content = _Content([], [])
    try:
        with os.scandir(place.path) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"folder {error.filename} cannot be read: {error.strerror}") from None
    for entry in entries:
        linked = entry.is_symlink()  # the entry itself knows its kind: a stat each takes minutes
        image = entry.name.lower().endswith(IMAGE_EXTENSIONS)
        if entry.name.startswith(".") or entry.name.lower() in _SYSTEM:
            left_out.add(HIDDEN, entry.path)
        elif os.path.isdir(entry.path) if linked else entry.is_dir():
            below = place.enter(entry)
            if below:
                content.folders.append(below)
            else:
                left_out.add(LOOP, entry.path)
        elif linked and not os.path.exists(entry.path):
            if image:
                content.images.append(entry.path)
            else:
                left_out.add(NOWHERE, entry.path)
        elif not (os.path.isfile(entry.path) if linked else entry.is_file()):
            left_out.add(SPECIAL, entry.path)
        elif image:
            content.images.append(entry.path)
        else:
            left_out.add(OTHER, entry.path)
    return content


def _images_below(place: _Place, left_out: LeftOut) -> list[str]:
    """The images anywhere below a folder, sorted."""
    images: list[str] = []
    places = [place]
    while places:
        content = _list(places.pop(), left_out)
        images += content.images
        places += reversed(content.folders)
    return sorted(images)


def _inner_folders(place: _Place, images: Sequence[str]) -> set[str]:
    """Names of the folders in a class folder that hold its images, "" for those beside them."""
    within = (path[len(place.path) + 1 :] for path in images)
    return {name.partition(os.sep)[0] if os.sep in name else "" for name in within}


def _named(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
