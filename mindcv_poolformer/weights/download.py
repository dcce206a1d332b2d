"""One file from a server to its place on disk: resumed, verified, and whole or not there."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import BinaryIO

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # it would tell the hub of every start

import httpx2  # noqa: E402
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.file_download import HfFileMetadata, get_hf_file_metadata, http_get
from huggingface_hub.utils import WeakFileLock

from ..runtime.errors import UserError
from ..runtime.files import sha256

_SHA256 = re.compile("[0-9a-f]{64}")


class NotThere(UserError):
    """The server has no such file."""


def download(url: str, place: Path, by_hand: str) -> None:
    """Bring a file to its place, unless it is there; several processes may want it at once.

    What an interrupted download has left beside it is taken up, if the server's file is the same
    still. The SHA-256 is compared where the server tells one, as the hub does in ETag. No access
    token is sent.

    Args:
        url: http(s) address of the file.
        place: of the file, when it is whole.
        by_hand: what the user can do instead, for the errors.

    Raises:
        NotThere: the server answers 404.
        UserError: any other failure of server, network or disk, or another SHA-256.
    """
    if place.is_file():
        return
    try:
        about = get_hf_file_metadata(url, token=False)  # a wrong address leaves nothing behind
        place.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(place.with_name(f".{place.name}.lock")):
            if not place.is_file():
                _transfer(url, place, about, by_hand)
    except HfHubHTTPError as error:
        kind = NotThere if error.response.status_code == 404 else UserError
        raise kind(
            f"{url}: found status {error.response.status_code}, expected a file; by hand: {by_hand}"
        ) from None
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise UserError(
            f"{url}: found no way to it ({_one_line(error)}), expected a server; by hand: {by_hand}"
        ) from None
    except OSError as error:
        raise UserError(
            f"{url}: cannot be put at {place} ({_one_line(error)}), expected a whole file and a "
            f"place to write; by hand: {by_hand}"
        ) from None


def _transfer(url: str, place: Path, about: HfFileMetadata, by_hand: str) -> None:
    unfinished = _unfinished(place, about)
    # Without a size nothing would tell whether an unfinished file is only short of its new name.
    with unfinished.open("wb" if about.size is None else "ab") as file:
        _receive(url, file, about.size)
    if about.etag and _SHA256.fullmatch(about.etag):
        found = sha256(unfinished)
        if found != about.etag:
            unfinished.unlink()
            raise UserError(
                f"{url}: found SHA-256 {found}, expected {about.etag} as its server tells; "
                f"by hand: {by_hand}"
            )
    unfinished.replace(place)


def _unfinished(place: Path, about: HfFileMetadata) -> Path:
    """Where the file grows; another one if the server's file changes, so that no two get mixed."""
    version = hashlib.sha256(f"{about.etag} {about.size}".encode()).hexdigest()[:8]
    return place.with_name(f".{place.name}.{version}.incomplete")


def _receive(url: str, file: BinaryIO, size: int | None) -> None:
    """Append what is missing; http_get asks for it by Range, and again if the line breaks."""
    http_get(url, file, resume_size=file.tell(), expected_size=size)
    file.flush()
    os.fsync(file.fileno())


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
