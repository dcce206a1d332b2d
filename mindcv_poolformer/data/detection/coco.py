"""Pictures with objects, from files of COCO's layout, as MMDetection picks them for training."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from ...runtime.errors import UnreadableError, UserError
from ..preprocess import open_image
from .annotation_check import ANNOTATIONS
from .annotation_file import AnnotationFile, read_annotations
from .outlines import NONE

PREFIX = "instances_"
SMALLEST = 32  # edge of a picture that is trained on, pixels


@dataclass(frozen=True, eq=False)
class Annotated:
    """A picture and the objects on it.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        boxes: (n, 4) float32, x and y of two corners, in pixels.
        labels: (n,) int32, indices of the classes.
        masks: (n, H, W) uint8, 1 on the object, else 0; None where they are not asked for.
    """

    pixels: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None


@dataclass(frozen=True, eq=False)
class CocoPictures:
    """Pictures of an annotation file, in its order, and the objects that are trained on.

    Args:
        file: tells of pictures and objects.
        root: the folder that the pictures lie in.
        classes: their names, in the order of their indices.
        category_ids: (K,) int64, the file's number of each class.
        chosen: (M,) int64, indices of the pictures in the file.
        labels: (A,) int32, the class of each of the file's objects, -1 for one that is left out.
        masks: give masks, too.
        notes: a line each on what was left out.
    """

    file: AnnotationFile
    root: Path
    classes: tuple[str, ...]
    category_ids: np.ndarray
    chosen: np.ndarray
    labels: np.ndarray
    masks: bool
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def check_words(self) -> str:
        """What `data check` is to be given to look at the pictures."""
        return f"{self.file.path} --images {self.root}"

    @cached_property
    def ids(self) -> np.ndarray:
        """The file's number of each picture, (M,) int64."""
        return self.file.picture_ids[self.chosen]

    @cached_property
    def sizes(self) -> np.ndarray:
        """Height and width of each picture, (M, 2) int32, as the file tells them."""
        return self.file.sizes[self.chosen]

    @cached_property
    def most_objects(self) -> int:
        """How many objects the fullest picture has."""
        kept = np.concatenate([[0], np.cumsum(self.labels >= 0)])
        counts = kept[self.file.first[self.chosen + 1]] - kept[self.file.first[self.chosen]]
        return int(counts.max(initial=0))

    def files(self, index: int) -> tuple[str, ...]:
        """Give the path of a picture."""
        return (os.path.join(self.root, self.file.names[self.chosen[index]]),)

    def named_labels(self) -> Iterator[tuple[str, int]]:
        """Give each picture's path within the folder, and a checksum of its boxes and labels.

        With masks it is of their outlines too.
        """
        for index in range(len(self)):
            numbers = self.objects(index)
            content = self.file.boxes[numbers].tobytes() + self.labels[numbers].tobytes()
            for number in numbers if self.masks else ():
                parts = self.file.outlines.parts(int(number))
                content += b"".join(part.tobytes() for part in parts)
            yield self.file.names[self.chosen[index]], zlib.crc32(content)

    def objects(self, index: int) -> np.ndarray:
        """Give the numbers (n,) int64 that the objects of a picture have in the file's arrays."""
        start, end = self.file.first[self.chosen[index] : self.chosen[index] + 2]
        return start + np.flatnonzero(self.labels[start:end] >= 0)

    def pixels(self, index: int) -> np.ndarray:
        """Read a picture (H, W, 3) uint8 RGB alone, as :func:`read_picture` does."""
        height, width = self.sizes[index].tolist()
        return read_picture(self.files(index)[0], height, width, self.file.path)

    def read(self, index: int) -> Annotated:
        """Read a picture and its objects.

        Raises:
            UnreadableError: as :func:`read_picture`; masks are asked for, and one cannot be drawn.
        """
        pixels = self.pixels(index)
        numbers = self.objects(index)
        boxes = self.file.boxes[numbers]
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        masks = None
        if self.masks:
            masks = np.zeros((len(numbers), *pixels.shape[:2]), np.uint8)
            for place, number in enumerate(numbers.tolist()):
                masks[place] = self._mask(index, number, *pixels.shape[:2])
        return Annotated(pixels, corners.astype(np.float32), self.labels[numbers], masks)

    def _mask(self, index: int, number: int, height: int, width: int) -> np.ndarray:
        try:
            return self.file.outlines.mask(number, height, width)
        except ValueError as error:
            reason = f": annotation {self.file.ids[number]} of {self.file.path}: {error}"
            raise UnreadableError.of("image", self.files(index)[0], reason) from None


def read_picture(path: str, height: int, width: int, annotations: Path) -> np.ndarray:
    """Read a picture (H, W, 3) uint8 RGB, turned as its EXIF orientation tells, as OpenCV does.

    Args:
        path: of the picture.
        height, width: that the annotations tell.
        annotations: path of their file.

    Raises:
        UnreadableError: as :func:`open_image`; the picture is of another size.
    """
    pixels = np.asarray(open_image(path, upright=True))
    found = pixels.shape[:2]
    if found != (height, width):
        with Image.open(path) as image:
            stored = image.size
        turned = ""
        if stored != found[::-1]:
            turned = f", as its EXIF orientation turns the {stored[0]} x {stored[1]} of the file"
        reason = (
            f": found {found[1]} x {found[0]} pixels{turned}, expected {width} x {height}, as in "
            f"{annotations}"
        )
        raise UnreadableError.of("image", path, reason)
    return pixels


def split_paths(root: str | Path, split: str) -> tuple[Path, Path]:
    """Give file and folder of a split, such as train2017, as COCO lays them out."""
    return Path(root) / ANNOTATIONS / f"{PREFIX}{split}.json", Path(root) / split


def training_pictures(
    annotations: str | Path | AnnotationFile,
    images: str | Path,
    *,
    masks: bool,
    classes: Sequence[str] | None = None,
) -> CocoPictures:
    """List the pictures to train on: of 32 pixels at least, and with an object of the classes.

    The object may be one that is left out itself, such as a crowd: then all is background. Left
    out is what MMDetection leaves out: what is to be ignored, lies outside of its picture, has no
    area or an edge below one pixel, is of another category, or is a crowd.

    Args:
        annotations: the file, or its path.
        images: folder of the pictures.
        masks: give masks, too.
        classes: some or all of the file's categories, in the order of their indices; by default
            all in the file's order.

    Raises:
        UserError: as :func:`read_annotations`; the folder is missing, the file lacks a class, or
            no picture is left; an object has no outline, and masks are asked for.
    """
    listed = _listed(annotations, images, masks, classes)
    file = listed.file
    known = classes_of(listed)
    if masks:
        want_outlines(listed, listed.labels)
    has_object = np.zeros(len(file.names), bool)
    has_object[file.pictures[known >= 0]] = True
    large = file.sizes.min(axis=1) >= SMALLEST
    chosen = np.flatnonzero(has_object & large)
    if not len(chosen):
        raise UserError(
            f"{file.path}: found no picture to train on, expected some with objects and edges of "
            f"at least {SMALLEST} pixels"
        )
    notes = list(listed.notes)
    if left := [
        f"{count:,} {what}"
        for count, what in (
            ((~has_object).sum(), "without an object"),
            ((has_object & ~large).sum(), f"below {SMALLEST} pixels"),
        )
        if count
    ]:
        notes.append(f"{file.path}: pictures left out: {', '.join(left)}")
    return replace(listed, chosen=chosen, notes=tuple(notes))


def evaluation_pictures(
    annotations: str | Path | AnnotationFile,
    images: str | Path,
    *,
    classes: Sequence[str] | None = None,
) -> CocoPictures:
    """List all pictures of a file; takes its arguments, and raises, as :func:`training_pictures`.

    With the network's classes as ``classes``, their indices are the network's. What training leaves
    out is compared with all the same, but for what is of another category.
    """
    listed = _listed(annotations, images, False, classes)
    others = int((classes_of(listed) < 0).sum())
    told = f"{listed.file.path}: objects left out: {others:,} of other categories"
    return replace(listed, notes=(told,) if others else ())


def _listed(
    annotations: str | Path | AnnotationFile,
    images: str | Path,
    masks: bool,
    classes: Sequence[str] | None,
) -> CocoPictures:
    root = Path(images)
    file = annotations
    if not isinstance(file, AnnotationFile):
        file = read_annotations(file)
    if not root.is_dir():
        there = "a file" if root.exists() else "no such folder"
        raise UserError(f"{root}: found {there}, expected the pictures of {file.path}")
    names = file.classes if classes is None else tuple(classes)
    index_of = {name: index for index, name in enumerate(file.classes)}
    for name in names:
        if name not in index_of:
            raise UserError(
                f"{file.path}: found no category {name} among {len(index_of)}, expected the "
                f"classes {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
            )
    order = np.array([index_of[name] for name in names], np.int64)
    everything = CocoPictures(
        file,
        root,
        names,
        file.category_ids[order],
        np.arange(len(file.names)),
        np.zeros(0, np.int32),
        masks,
    )
    reasons = left_out(file, classes_of(everything))
    kept = np.logical_not(np.logical_or.reduce(list(reasons.values())))
    counted = [f"{reasons[what].sum():,} {what}" for what in reasons if reasons[what].any()]
    notes = [f"{file.path}: objects left out: {', '.join(counted)}"] if counted else []
    labels = np.where(kept, classes_of(everything), -1).astype(np.int32)
    return replace(everything, labels=labels, notes=tuple(notes))


def left_out(file: AnnotationFile, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Tell which objects are not trained on, (A,) bool for each reason; an object has one at most.

    Args:
        file: of the objects.
        labels: (A,) integers, the class of each, -1 for none.
    """
    x, y, width, height = file.boxes.T
    high, wide = file.sizes[file.pictures].T
    inside_x = np.maximum(0, np.minimum(x + width, wide) - np.maximum(x, 0))
    inside_y = np.maximum(0, np.minimum(y + height, high) - np.maximum(y, 0))
    reasons = {
        "to be ignored": file.ignored,
        "outside of the picture": inside_x * inside_y == 0,
        "without area": (file.areas <= 0) | (width < 1) | (height < 1),
        "of other categories": labels < 0,
        "marked as crowd": file.crowds,
    }
    taken = np.zeros(len(labels), bool)
    for what, there in reasons.items():
        reasons[what] = there & ~taken
        taken |= there
    return reasons


def classes_of(pictures: CocoPictures) -> np.ndarray:
    """The class of each of the file's objects, (A,) int32, -1 for none of the classes."""
    file = pictures.file
    index_of = {name: index for index, name in enumerate(pictures.classes)}
    of_category = [index_of.get(name, -1) for name in file.classes]
    return np.array([*of_category, -1], np.int32)[file.categories]


def want_outlines(pictures: CocoPictures, labels: np.ndarray) -> None:
    """Refuse pictures with an object that has no outline.

    Args:
        pictures: of a file.
        labels: (A,), negative for the file's objects that need none.

    Raises:
        UserError: there is one.
    """
    file = pictures.file
    missing = np.flatnonzero((labels >= 0) & (file.outlines.kinds == NONE))
    if len(missing):
        number = missing[0]
        picture = file.picture_ids[file.pictures[number]]
        raise UserError(
            f"{file.path}: picture {picture}, annotation {file.ids[number]}: found no outline, "
            f"expected one of each object for its mask ({len(missing):,} without one)"
        )
