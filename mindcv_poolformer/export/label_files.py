"""What a segmenter's bundle says of image files, as files."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..data.preprocess import open_image
from ..data.segmentation.labelling import shares_of
from ..runtime.errors import UserError
from ..runtime.files import replaced_file
from .segmenter import SegmenterBundle

KINDS = ("labels", "overlay")


def write_label_files(
    bundle: SegmenterBundle, paths: Sequence[Path], folder: Path
) -> Iterator[dict[str, Any]]:
    """Segment images one by one; write what is found as PNGs into a folder, which need not exist.

    ``<name>.png`` has the class of each pixel in the data set's own numbers, and
    ``<name>_overlay.png`` the image under the classes' colours. Files that are there are replaced.

    Yields:
        for each image in turn "image" and either "files", their paths by KINDS, and "classes", a
        list of "index", "class" and "share" of the pixels, the largest first; or "error", why it
        cannot be read.

    Raises:
        UserError: a file would replace an image, or cannot be written.
    """
    targets = [[folder / name for name in names] for names in file_names(paths)]
    images = {path.resolve() for path in paths}
    for file in itertools.chain.from_iterable(targets):
        if file.resolve() in images:
            raise UserError(
                f"output_dir: found {file} among the images, expected a folder without them"
            )
    for path, files in zip(paths, targets, strict=True):
        try:
            picture = open_image(path)
            labels = _segmented(bundle, picture, path)
        except UserError as error:
            yield {"image": str(path), "error": str(error)}
            continue
        for file, image in zip(
            files,
            (bundle.labelling.file_image(labels), bundle.labelling.overlay(picture, labels)),
            strict=True,
        ):
            with replaced_file(file) as staging:
                staging.write_bytes(as_png(image))
        yield {
            "image": str(path),
            "files": dict(zip(KINDS, map(str, files), strict=True)),
            "classes": told_classes(labels, bundle.classes),
        }


def as_png(image: Image.Image) -> bytes:
    """The content of the file for an image."""
    content = BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def told_classes(labels: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """What is said of class indices (H, W): "index", "class" and "share" of the pixels.

    The largest comes first.
    """
    return [
        {"index": index, "class": classes[index], "share": share}
        for index, share in shares_of(labels)
    ]


def _segmented(bundle: SegmenterBundle, picture: Image.Image, path: Path) -> np.ndarray:
    try:
        return bundle.label_map(picture)
    except UserError as error:  # which knows no file
        raise UserError(f"image {path}: {error}") from None


def file_names(paths: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """For each path the names of label file and overlay, with a number where one is taken."""
    taken: set[str] = set()
    for path in paths:
        stems = itertools.chain([path.stem], (f"{path.stem}_{i}" for i in itertools.count(2)))
        pairs = ((f"{stem}.png", f"{stem}_overlay.png") for stem in stems)
        names = next(pair for pair in pairs if taken.isdisjoint(pair))
        taken.update(names)
        yield names
