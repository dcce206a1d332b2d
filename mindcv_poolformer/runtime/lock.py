"""A run's folder: one process at a time in it, and one folder for all ranks."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np

from .collectives import all_gather
from .errors import UserError
from .files import made_folder

LOCK = ".lock"
SEEN_SECONDS = 5  # until other hosts see a new file, where a network's file system caches


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process alone, as long as the block; it is made if it is missing.

    The kernel lets go of the lock when the process ends, however it ends, so none is ever stale:
    the file ``.lock`` stays and only tells who held it last. A record lock, not flock: that one
    would live on in forked data workers.

    Raises:
        UserError: another process holds it, or the folder cannot be made or written to.
    """
    with contextlib.ExitStack() as held:
        try:
            made = held.enter_context(made_folder(folder))
            file = held.enter_context((folder / LOCK).open("a+"))
        except OSError as error:
            raise _unusable(folder, error) from error
        try:
            _take(file, folder)
            yield
        finally:
            if made and [entry.name for entry in folder.iterdir()] == [LOCK]:
                (folder / LOCK).unlink()


def check_shared(folder: Path, rank: int, size: int) -> None:
    """Refuses a folder that other ranks do not see as rank 0 does, which has it `locked`.

    Every rank goes on from the checkpoint that it finds there, and its data workers list there
    what they cannot read. All ranks call this, and wait for each other.

    Raises:
        UserError: on every rank, naming those that see another folder or none.
    """
    if size == 1:
        return
    # Rank 0 reads nothing: closing the file would let go of the lock.
    own = _digest(_holder()) if rank == 0 else _digest_in(folder)
    main = all_gather(own, size)[0]
    deadline = time.monotonic() + SEEN_SECONDS
    while (own != main).any() and time.monotonic() < deadline:
        time.sleep(0.1)
        own = _digest_in(folder)
    seen = all_gather(own, size)
    others = ", ".join(str(other) for other in range(size) if (seen[other] != main).any())
    if others:
        raise UserError(
            f"ckpt_save_dir: found rank 0's folder {folder} not shared with ranks: {others}; "
            "expected one that all hosts see"
        )


def _digest_in(folder: Path) -> np.ndarray:
    try:
        return _digest((folder / LOCK).read_bytes())
    except OSError:
        return _digest(b"")


def _digest(holder: bytes) -> np.ndarray:
    """16 words."""
    return np.frombuffer(hashlib.sha256(holder).digest(), np.uint16)


def _holder() -> bytes:
    return f"process {os.getpid()} on {socket.gethostname()}\n".encode()


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
        os.write(file.fileno(), _holder())
        os.fsync(file.fileno())  # for check_shared, on other hosts
    except OSError as error:
        raise _unusable(folder, error) from error


def _unusable(folder: Path, error: OSError) -> UserError:
    return UserError(f"{folder}: cannot be used ({error.strerror}), expected a folder to write to")
