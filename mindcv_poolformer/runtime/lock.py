"""One process at a time in a folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from .errors import UserError

LOCK = ".lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process alone, as long as the block; it is made if it is missing.

    The kernel lets go of the lock when the process ends, however it ends, so none is ever stale:
    the file ``.lock`` stays and only tells who held it last. A record lock, not flock: that one
    would live on in forked data workers.

    Raises:
        UserError: another process holds it, or the folder cannot be made or written to.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+")
    except OSError as error:
        raise _unusable(folder, error) from error
    with file:
        try:
            _take(file, folder)
            yield
        finally:
            if made and [entry.name for entry in folder.iterdir()] == [LOCK]:
                (folder / LOCK).unlink()
                folder.rmdir()


def _take(file: TextIO, folder: Path) -> None:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        raise UserError(
            f"{folder}: found it in use by {file.read().strip()}, expected one run in a folder: "
            "wait for its end, or choose another --ckpt_save_dir"
        ) from None
    try:
        os.truncate(file.fileno(), 0)
        os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    except OSError as error:
        raise _unusable(folder, error) from error


def _unusable(folder: Path, error: OSError) -> UserError:
    return UserError(f"{folder}: cannot be used ({error.strerror}), expected a folder to write to")
