"""Folders of scenes in ADE20K's layout: pictures, and for each a PNG with a label per pixel."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from ...runtime.counted import counted
from ...runtime.errors import UnreadableError, UserError
from ...runtime.files import read_text
from ..folder import files_below
from ..preprocess import DAMAGED, open_image
from . import ade20k

IMAGES, ANNOTATIONS, CLASSES = "images", "annotations", "classes.txt"
IGNORED = 255


@dataclass(frozen=True, eq=False)
class SceneFolder:
    """The scenes of a split in a fixed order: `images[i]` is the picture of `labels[i]`.

    Args:
        root: holds `images/<split>` and `annotations/<split>`.
        classes: their names, in the order of their indices.
        images: paths of the pictures.
        labels: paths of the PNGs.
        reduce_zero_label: a PNG's 0 means unlabelled, and k the class of index k - 1.
        notes: a line each on what was left out.
    """

    root: Path
    classes: tuple[str, ...]
    images: tuple[str, ...]
    labels: tuple[str, ...]
    reduce_zero_label: bool
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.images)

    def named_labels(self) -> Iterator[tuple[str, int]]:
        """Give each picture's path within the folder, and 0: what is on it stands in its label."""
        for path in self.images:
            yield os.path.relpath(path, self.root), 0

    @property
    def check_words(self) -> str:
        """What `data check` is to be given to look at the scenes."""
        return f"{self.root}{'' if self.reduce_zero_label else ' --reduce_zero_label false'}"

    def files(self, index: int) -> tuple[str, ...]:
        """Give the paths of a scene's picture and label."""
        return self.images[index], self.labels[index]

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Read a scene as :func:`read_scene` does."""
        files = self.images[index], self.labels[index]
        return read_scene(*files, len(self.classes), self.reduce_zero_label)


def read_scene(
    image: str, label: str, num_classes: int, reduce_zero_label: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Give a picture (H, W, 3) uint8 RGB and its classes (H, W) uint8, IGNORED where none.

    Args:
        image: path of the picture.
        label: path of its PNG.
        num_classes: how many classes there are.
        reduce_zero_label: see :class:`SceneFolder`.

    Raises:
        UnreadableError: as :func:`open_image` and :func:`read_label`; the two differ in size.
    """
    picture = np.asarray(open_image(image))
    classes = read_label(label, num_classes, reduce_zero_label)
    (height, width), (high, wide) = picture.shape[:2], classes.shape
    if (height, width) != (high, wide):
        reason = f": found {wide} x {high} pixels, expected {width} x {height}, as in {image}"
        raise UnreadableError.of("label", label, reason)
    return picture, classes


def ade20k_scenes(root: str | Path, split: str) -> SceneFolder:
    """List a split, `training` or `validation`, of ADE20K as the scene parsing benchmark has it.

    Raises:
        UserError: as :func:`scan_scenes`.
    """
    return scan_scenes(root, split, ade20k.names(), reduce_zero_label=True)


def own_scenes(root: str | Path, split: str, *, reduce_zero_label: bool) -> SceneFolder:
    """List a split of a folder of one's own, whose classes stand in `classes.txt`.

    Raises:
        UserError: as :func:`read_classes` and :func:`scan_scenes`.
    """
    classes = read_classes(Path(root) / CLASSES)
    return scan_scenes(root, split, classes, reduce_zero_label=reduce_zero_label)


def read_classes(path: Path) -> tuple[str, ...]:
    """Read the names of the classes, one a line, in the order of their indices.

    Raises:
        UserError: the file cannot be read, or a line is empty or there twice.
    """
    lines = read_text(path, "a class name a line").rstrip().splitlines()
    names: list[str] = []
    for number, name in enumerate(map(str.strip, lines), start=1):
        if not name:
            raise UserError(f"{path}: found line {number} empty, expected the name of a class")
        if name in names:
            raise UserError(f"{path}: found {name} twice, expected names that differ")
        names.append(name)
    if not names:
        raise UserError(f"{path}: found an empty file, expected a class name a line")
    return tuple(names)


def scan_scenes(
    root: str | Path, split: str, classes: Sequence[str], *, reduce_zero_label: bool
) -> SceneFolder:
    """Pair `images/<split>/**` with the PNGs of the same names in `annotations/<split>/**`.

    Links, hidden names and other files are treated as :func:`data.folder.scan_folder` does. No
    file is opened.

    Raises:
        UserError: as :func:`check_classes` and :func:`pair_scenes`, or the first fault that the
            latter gives.
    """
    root = Path(root)
    check_classes(root, classes, reduce_zero_label=reduce_zero_label)
    pairs = pair_scenes(root, split)
    if pairs.faults:
        raise pairs.faults[0]
    return SceneFolder(
        root, tuple(classes), pairs.images, pairs.labels, reduce_zero_label, pairs.notes
    )


def check_classes(root: Path, classes: Sequence[str], *, reduce_zero_label: bool) -> None:
    """Refuse more classes than a label has room for.

    Raises:
        UserError: there are, or there is none.
    """
    most = IGNORED - 1 if reduce_zero_label else IGNORED
    if not 0 < len(classes) <= most:
        raise UserError(f"{root}: found {counted(len(classes), 'class')}, expected 1 to {most}")


@dataclass(frozen=True)
class Pairs:
    """The scenes of a split before any is read.

    Args:
        images: paths of the pictures, in a fixed order.
        labels: path of the label of each.
        faults: what is no such pair.
        notes: a line each on what was left out.
    """

    images: tuple[str, ...]
    labels: tuple[str, ...]
    faults: tuple[UnreadableError, ...]
    notes: tuple[str, ...]


def pair_scenes(root: Path, split: str) -> Pairs:
    """Pair pictures with labels, and tell which have no partner, an equal one, or are no PNG.

    Raises:
        UserError: a folder is missing, cannot be read or holds no image.
    """
    pictures: dict[str, str] = {}
    labels: dict[str, str] = {}
    notes: list[str] = []
    faults: list[UnreadableError] = []
    for files, kind, what in ((pictures, IMAGES, "image"), (labels, ANNOTATIONS, "label")):
        folder = root / kind / split
        if not folder.is_dir():
            there = "a file" if folder.exists() else "no such folder"
            raise UserError(f"{folder}: found {there}, expected the {kind} of the {split} split")
        paths, left_out = files_below(folder)
        if str(left_out):
            notes.append(f"{folder}: {left_out} ignored")
        for path in paths:
            name = os.path.splitext(os.path.relpath(path, folder))[0]
            if name in files:
                reason = (
                    f": found {files[name]} beside it, expected names that differ in more than "
                    "their ending"
                )
                faults.append(UnreadableError.of(what, path, reason))
                continue
            files[name] = path
    for name, path in pictures.items():
        if name not in labels:
            wanted = root / ANNOTATIONS / split / f"{name}.png"
            reason = f": found no label for it, expected {wanted}"
            faults.append(UnreadableError.of("image", path, reason))
    for name, path in labels.items():
        if not path.lower().endswith(".png"):
            reason = f": found no PNG, expected {name}.png, which loses nothing"
            faults.append(UnreadableError.of("label", path, reason))
        elif name not in pictures:
            wanted = root / IMAGES / split / name
            reason = f": found no picture for it, expected {wanted}.jpg or .png"
            faults.append(UnreadableError.of("label", path, reason))
    spoilt = {fault.path for fault in faults}
    whole = [name for name, path in pictures.items() if not {path, labels.get(name)} & spoilt]
    return Pairs(
        tuple(pictures[name] for name in whole),
        tuple(labels[name] for name in whole),
        tuple(faults),
        tuple(notes),
    )


def read_label(path: str | Path, num_classes: int, reduce_zero_label: bool) -> np.ndarray:
    """Read a label PNG, 8-bit grey or with a palette, whose indices then count, not its colours.

    Args:
        path: of the file.
        num_classes: how many classes there are.
        reduce_zero_label: see :class:`SceneFolder`.

    Returns:
        (H, W) uint8, the classes' indices, and IGNORED where there is none.

    Raises:
        UnreadableError: the file is missing, damaged, or no such PNG; a value stands for no class.
    """
    try:
        with Image.open(path) as image:
            kind, mode = image.format, image.mode
            values = np.array(image) if mode in ("L", "P") else None
    except FileNotFoundError:
        raise UnreadableError.of("label", path, " does not exist") from None
    except Image.UnidentifiedImageError:
        reason = " is not in an image format that Pillow reads"
        raise UnreadableError.of("label", path, reason) from None
    except (*DAMAGED, Image.DecompressionBombError) as error:
        reason = f" cannot be read: {' '.join(str(error).split())}"
        raise UnreadableError.of("label", path, reason) from error
    if kind != "PNG" or values is None:
        reason = (
            f": found a {kind} of {_MODES.get(mode, f'mode {mode}')}, expected a PNG of 8 bits, "
            "grey or with a palette: a class index per pixel"
        )
        raise UnreadableError.of("label", path, reason)
    first = int(reduce_zero_label)
    known = np.zeros(256, bool)
    known[: num_classes + first] = known[IGNORED] = True
    wrong = np.flatnonzero(~known & (np.bincount(values.ravel(), minlength=256) > 0))
    if wrong.size:
        unlabelled = "0 or 255 for unlabelled" if reduce_zero_label else "255 for unlabelled"
        reason = (
            f": found the value {wrong[-1]}, expected {first} to {num_classes - 1 + first} for the "
            f"{num_classes} classes, or {unlabelled}"
        )
        raise UnreadableError.of("label", path, reason)
    return reduce_zero(values) if reduce_zero_label else values


_MODES = {
    "1": "1 bit",
    "L": "8-bit grey",
    "P": "8-bit indices",
    "I;16": "16 bits",
    "RGB": "colours (RGB)",
    "RGBA": "colours (RGBA)",
}


def reduce_zero(values: np.ndarray) -> np.ndarray:
    """Make 0 and IGNORED of a uint8 label IGNORED, and every other k the class k - 1."""
    return _REDUCED[values]


_REDUCED = np.array([IGNORED, *range(IGNORED - 1), IGNORED], np.uint8)
