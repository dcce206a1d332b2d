"""ImageNet-1K's classes: their names, their folders, and which weights have them as outputs."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Sequence
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

from ..models import VARIANTS
from .read import FOLDER_FILES, INDICES

_TABLE = "imagenet_1k.tsv"
# What follows on a variant in the name of a file of sail-sg's and of MindCV's, and of a file or
# repository of timm's.
_OF_AUTHORS = r"\.pth(\.tar)?|-[0-9a-f]{8}(-910v2)?\.ckpt"
_OF_TIMM = r"\.sail_(in22k_ft_)?in1k(_384)?"
_SUFFIX = r"(\.safetensors|\.bin|\.pth)?"
_PUBLISHED = re.compile(rf"(models--timm--)?(?P<variant>\w+?)({_OF_AUTHORS}|{_OF_TIMM}{_SUFFIX})")


@functools.cache
def _rows() -> tuple[tuple[str, str], ...]:
    lines = (files(__package__) / _TABLE).read_text("utf-8").splitlines()
    rows = (line.split("\t") for line in lines if not line.startswith("#"))
    return tuple((folder, name) for folder, name in rows)


def names() -> tuple[str, ...]:
    """Give the 1,000 names, such as "tench, Tinca tinca"; two of them are "crane"."""
    return tuple(name for _, name in _rows())


def folders() -> tuple[str, ...]:
    """Give the names of the 1,000 class folders, WordNet ids such as "n01440764"."""
    return tuple(folder for folder, _ in _rows())


def folders_of(classes: Sequence[str], found: Collection[str]) -> tuple[str, ...] | None:
    """Give ImageNet's class folders where they stand for outputs with the names ``classes``.

    Args:
        classes: the names of all outputs.
        found: the class folders that there are.

    Returns:
        a folder for each output; None if the names are not ImageNet's, or none of ``found`` is a
        folder of ImageNet's.
    """
    ids = folders()
    if tuple(classes) != names() or set(ids).isdisjoint(found):
        return None
    return ids


def published(place: str | Path) -> bool:
    """Tell whether weights lie where published weights of 1,000 classes lie, by their names.

    These are sail-sg's releases, such as poolformer_s12.pth.tar or caformer_s18.pth, MindCV's, such
    as poolformer_s12-5be5c4e4.ckpt, and timm's repositories of the hub, such as
    timm/poolformer_s12.sail_in1k, and their files. Shapes alone would not do: 1,000 outputs may
    stand for a user's own classes.

    Args:
        place: path or address of a file, or of a repository; the file of a repository may have any
            of the names that they have there, in a folder of the repository's name or in a cache of
            huggingface_hub.
    """
    *above, name = Path(urlsplit(str(place)).path).parts or ("",)
    if name in (*FOLDER_FILES, *INDICES) and above:
        # <repository>/resolve/main/model.safetensors, or snapshots/<revision> between the two
        between = len(above) > 2 and above[-2] in ("resolve", "snapshots")
        name = above[-3] if between else above[-1]
    found = _PUBLISHED.fullmatch(name)
    return found is not None and found["variant"] in VARIANTS
