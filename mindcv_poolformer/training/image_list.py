"""Which images a run is trained on, kept in its folder to tell what has changed."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path

from ..runtime.files import replaced_file

FILE = "training_images.txt.gz"


def write_image_list(folder: Path, images: Iterable[tuple[str, int]]) -> None:
    """Write a line for each image into a run folder: its label, and its name as Python writes it.

    Args:
        folder: the run folder.
        images: name within the training set and label of each, in order.
    """
    with replaced_file(folder / FILE) as written:
        with gzip.open(written, "wt", compresslevel=1, encoding="ascii", newline="\n") as file:
            file.writelines(f"{label} {ascii(name)}\n" for name, label in images)


def what_changed(folder: Path, images: Iterable[tuple[str, int]]) -> str | None:
    """Tell how the images differ from those of the list in a run folder; None without a list."""
    if not (folder / FILE).is_file():
        return None
    with gzip.open(folder / FILE, "rt", encoding="ascii") as file:
        lines = [line.rstrip("\n").split(" ", 1) for line in file]
    then = {name: label for label, name in lines}
    now = {ascii(name): str(label) for name, label in images}
    came, went = sorted(now.keys() - then.keys()), sorted(then.keys() - now.keys())
    if came or went:
        return f"{len(came)} came and {len(went)} went, one is {(came or went)[0]}"
    moved = sorted(name for name in now if now[name] != then[name])
    return f"{len(moved)} have another class's number, one is {moved[0]}" if moved else None
