"""The key of an encrypted bundle: from a file alone, so that no command line or log shows it."""

from __future__ import annotations

from pathlib import Path

from ..runtime.errors import UserError

LENGTHS = (16, 24, 32)  # bytes: AES-128, AES-192, AES-256


def read_key_file(path: str | Path) -> bytes:
    """Read a key: the whole content of a file, which is 16, 24 or 32 bytes.

    Raises:
        UserError: the file cannot be read, or is of another length.
    """
    try:
        with Path(path).open("rb") as file:
            key = file.read(LENGTHS[-1] + 1)
    except OSError as error:
        raise UserError(f"key file {path}: found {error.strerror!r}, expected a key") from None
    if len(key) not in LENGTHS:
        found = f"{len(key)} bytes" if len(key) <= LENGTHS[-1] else f"more than {LENGTHS[-1]} bytes"
        raise UserError(
            f"key file {path}: found {found}, expected 16, 24 or 32 and nothing else, no line end"
        )
    return key


def read_key(folder: Path, cipher: str | None, key_file: str | Path | None) -> bytes | None:
    """The key for a bundle, None for one that is not encrypted.

    Raises:
        UserError: as :func:`read_key_file`, or a key is missing or not wanted.
    """
    if cipher is None and key_file:
        raise UserError(f"dec_key_file: found one for {folder}, which is not encrypted")
    if cipher is None:
        return None
    if not key_file:
        raise UserError(
            f"bundle {folder}: found it encrypted ({cipher}), expected --dec_key_file, or key_file "
            "in Python or the server's model-settings.json"
        )
    return read_key_file(key_file)
