"""What is found on image files, as files."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from ..data.preprocess import open_image
from ..runtime.errors import UserError
from ..runtime.files import replaced_file

Look = Callable[[Image.Image], tuple[Sequence[Image.Image], dict[str, Any]]]


def write_pictures(
    paths: Sequence[Path], folder: Path, kinds: Mapping[str, str], look: Look
) -> Iterator[dict[str, Any]]:
    """Look at images one by one; write what is found as PNGs into a folder, which need not exist.

    Files that are there are replaced.

    Args:
        paths: of the images.
        folder: for the PNGs.
        kinds: what is written, and what its files' names have behind an image's.
        look: from an RGB picture to a PNG of each kind, and what else is told of it.

    Yields:
        for each image in turn "image" and either "files", their paths by kind, and what else is
        told; or "error", why it cannot be read.

    Raises:
        UserError: a file would replace an image, or cannot be written.
    """
    targets = [[folder / name for name in names] for names in file_names(paths, kinds.values())]
    images = {path.resolve() for path in paths}
    for file in itertools.chain.from_iterable(targets):
        if file.resolve() in images:
            raise UserError(
                f"output_dir: found {file} among the images, expected a folder without them"
            )
    for path, files in zip(paths, targets, strict=True):
        try:
            found, told = _seen(path, look)
        except UserError as error:
            yield {"image": str(path), "error": str(error)}
            continue
        for file, image in zip(files, found, strict=True):
            with replaced_file(file) as staging:
                staging.write_bytes(as_png(image))
        named = dict(zip(kinds, map(str, files), strict=True))
        yield {"image": str(path), "files": named, **told}


def as_png(image: Image.Image) -> bytes:
    """The content of the file for an image."""
    content = BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def _seen(path: Path, look: Look) -> tuple[Sequence[Image.Image], dict[str, Any]]:
    picture = open_image(path)
    try:
        return look(picture)
    except UserError as error:  # which knows no file
        raise UserError(f"image {path}: {error}") from None


def file_names(paths: Sequence[Path], endings: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """For each path the names of its files, with a number where one is taken.

    Args:
        paths: of the images.
        endings: of the files' stems, behind an image's.
    """
    endings = tuple(endings)
    taken: set[str] = set()
    for path in paths:
        stems = itertools.chain([path.stem], (f"{path.stem}_{i}" for i in itertools.count(2)))
        groups = (tuple(f"{stem}{ending}.png" for ending in endings) for stem in stems)
        names = next(group for group in groups if taken.isdisjoint(group))
        taken.update(names)
        yield names
