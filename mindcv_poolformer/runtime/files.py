"""Files: read, told apart by their content, and put in place whole whatever interrupts this."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from .errors import UserError

READABLE = 0o644  # MindSpore and safetensors let only the owner read


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_text(path: Path, expected: str) -> str:
    """Read a user's text in UTF-8, with or without a byte order mark.

    Args:
        path: of it.
        expected: what it is to hold, for the errors.

    Raises:
        UserError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: found {error.strerror}, expected {expected}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: found bytes that are not UTF-8, expected {expected}") from None


@contextlib.contextmanager
def replaced_file(path: Path, backup: Path | None = None) -> Iterator[Path]:
    """Give a name to write a file under; after the block it stands at ``path``, for all to read.

    ``path`` holds the old file or the new one, whole; if the block raises, the old one. With
    ``backup`` the old one stands there in the end, and between two renames ``path`` does not exist.

    Raises:
        UserError: the file system does not take it: full, read-only, forbidden.
    """
    with _staging(path) as staging:
        written = staging / path.name
        yield written
        written.chmod(READABLE)
        _flush(written)
        if backup and path.exists():
            path.replace(backup)
        written.replace(path)
        _flush(path.parent)


@contextlib.contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder to fill with files; after the block it stands at ``path``.

    If the block raises, what was at ``path`` before is still there.

    Raises:
        UserError: as :func:`replaced_file`.
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
    try:
        with made_folder(folder.parent):
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)  # gone already if it was put in place
    except OSError as error:
        kept = "; what was there before is kept" if path.exists() else ""
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}), "
            f"expected a place to write to{kept}"
        ) from error


@contextlib.contextmanager
def made_folder(path: Path) -> Iterator[bool]:
    """A folder for the block, and those above it; give whether it was missing.

    Those that were made go with the block if they are empty then.
    """
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        for folder in reversed(made):
            folder.mkdir(exist_ok=True)
        yield path in made
    finally:
        for folder in made:
            with contextlib.suppress(OSError):  # it holds something now
                folder.rmdir()


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed while they wrote left in a folder.

    To call where no other process writes into the folder.
    """
    for entry in folder.iterdir():
        if re.fullmatch(r"\..+\.\d+", entry.name) and entry.is_dir():
            shutil.rmtree(entry)


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
