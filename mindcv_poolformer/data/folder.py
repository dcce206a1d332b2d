"""Folders of images in ImageNet's layout: one subfolder per class."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from ..runtime.errors import UserError

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """The images below `root` in a fixed order, with `labels[i]` an index into `classes`."""

    root: Path
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    labels: np.ndarray  # (len(paths),) int32

    def __len__(self) -> int:
        return len(self.paths)

    def named_labels(self) -> Iterator[tuple[str, int]]:
        """Give each image's path within the folder, and its label."""
        for path, label in zip(self.paths, self.labels, strict=True):
            yield os.path.relpath(path, self.root), int(label)


def scan_folder(root: str | Path, classes: Sequence[str] | None = None) -> ImageFolder:
    """List the images of `<root>/<class>/**`, sorted by name.

    Args:
        root: folder with one subfolder per class.
        classes: class names that fix the labels, usually those of the training set; some may have
            no folder here. By default the sorted names of the class folders.

    Raises:
        UserError: `root` is missing, not a folder or not readable, has no class folder, has one
            without an image, or has one that `classes` lacks.
    """
    root = Path(root)
    if not root.exists():
        raise UserError(f"image folder {root} does not exist; expected <folder>/<class>/<image>")
    if not root.is_dir():
        raise UserError(f"image folder {root} is not a folder; expected <folder>/<class>/<image>")
    try:
        found = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    except OSError as error:
        _stop(error)
    if not found:
        raise UserError(f"image folder {root} holds no class folder; expected one per class")
    classes = tuple(found if classes is None else classes)
    index_of = {name: index for index, name in enumerate(classes)}
    paths: list[str] = []
    labels: list[int] = []
    for name in found:
        if name not in index_of:
            raise UserError(
                f"class folder {root / name} is not among the {len(classes)} training classes"
            )
        images = _images_below(root / name)
        if not images:
            raise UserError(
                f"class folder {root / name} holds no image; expected {' '.join(IMAGE_EXTENSIONS)}"
            )
        paths += images
        labels += [index_of[name]] * len(images)
    return ImageFolder(root, classes, tuple(paths), np.array(labels, dtype=np.int32))


def find_images(places: Sequence[str | Path]) -> list[Path]:
    """List image files: each place itself, or the images anywhere below it, sorted, if a folder.

    Raises:
        UserError: a folder holds no image.
    """
    paths: list[Path] = []
    for place in map(Path, places):
        if not place.is_dir():
            paths.append(place)
            continue
        found = _images_below(place)
        if not found:
            raise UserError(
                f"{place}: found no image in the folder, expected {' '.join(IMAGE_EXTENSIONS)}"
            )
        paths += map(Path, found)
    return paths


def files_below(folder: Path) -> tuple[list[str], int]:
    """List the image files anywhere below a folder, sorted, and count its other files.

    Raises:
        UserError: a folder cannot be read.
    """
    images: list[str] = []
    others = 0
    for parent, _, names in os.walk(folder, onerror=_stop, followlinks=True):
        found = [name for name in names if name.lower().endswith(IMAGE_EXTENSIONS)]
        images += [os.path.join(parent, name) for name in found]
        others += len(names) - len(found)
    return sorted(images), others


def _stop(error: OSError) -> NoReturn:
    raise UserError(f"folder {error.filename} cannot be read: {error.strerror}")


def _images_below(folder: Path) -> list[str]:
    return files_below(folder)[0]
