"""Putting files and folders in place so that whatever interrupts this, they are whole."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

READABLE = 0o644  # MindSpore and safetensors let only the owner read


@contextlib.contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Give a name to write a file under; after the block it stands at ``path``, for all to read.

    ``path`` holds the old file or the new one, whole; if the block raises, the old one.
    """
    with _staging(path) as staging:
        written = staging / path.name
        yield written
        written.chmod(READABLE)
        _flush(written)
        written.replace(path)
        _flush(path.parent)


@contextlib.contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder to fill with files; after the block it stands at ``path``.

    If the block raises, what was at ``path`` before is still there.
    """
    with _staging(path) as staging:
        yield staging
        for file in staging.iterdir():
            file.chmod(READABLE)
        _put_in_place(staging, path)


@contextlib.contextmanager
def _staging(path: Path) -> Iterator[Path]:
    """An empty folder beside ``path``, which goes with all that is left in it."""
    folder = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # gone already if it was put in place


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put_in_place(staging: Path, target: Path) -> None:
    """Rename ``staging`` to ``target``; what is there comes back if that fails."""
    if not target.exists():
        staging.rename(target)
        return
    old = target.with_name(f"{staging.name}.old")
    target.rename(old)
    try:
        staging.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old)
