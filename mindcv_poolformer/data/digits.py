"""The demo's images: scikit-learn's handwritten digits as a folder in ImageNet's layout."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ..runtime.errors import UserError

NUM_IMAGES = 1797
EDGE = 32  # the originals have 8 pixels; the network's strides want 32


def write_digits(root: str | Path) -> None:
    """Write `<root>/{train,val}/{0..9}/<number>.png`: 1,797 grey images, a fifth of each class val.

    The folder appears as a whole or not at all, and always with the same content; a complete one
    is left as it is.

    Raises:
        UserError: `root` holds something else, or scikit-learn is not installed.
    """
    written_once(Path(root), "digits", _is_complete, _write_images)


def written_once(
    root: Path,
    name: str,
    is_complete: Callable[[Path], bool],
    write: Callable[[Path], None],
) -> None:
    """Have a folder written as a whole or not at all; a complete one is left as it is.

    Args:
        root: the folder.
        name: of the data set, for the error.
        is_complete: tells whether a folder holds all of it.
        write: into an empty folder.

    Raises:
        UserError: `root` holds something else, or as `write`.
    """
    if is_complete(root):
        return
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(
            f"{root} exists but is not the complete {name} data set; remove it or name another"
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    temporary.chmod(0o755)  # mkdtemp's 0o700 would hide the data from other users
    try:
        write(temporary)
        temporary.rename(root)
    except OSError:
        # Another process may have put the same folder there in the meantime.
        if not is_complete(root):
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def digits_by_split() -> dict[str, list[tuple[int, np.ndarray]]]:
    """Give the digit and the pixels (8, 8) uint8 of each image, a fifth of each digit's for val.

    Raises:
        UserError: scikit-learn is not installed.
    """
    images, labels = _load()
    return {
        split: [(int(labels[number]), images[number]) for number in numbers]
        for split, numbers in _splits(labels).items()
    }


def _load() -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 8, 8) uint8, labels (N,)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError(
            "the digits data set needs scikit-learn, which is not installed: "
            "pip install scikit-learn"
        ) from None
    digits = load_digits()
    return np.rint(digits.images * (255 / 16)).astype(np.uint8), digits.target


def _splits(labels: np.ndarray) -> dict[str, list[int]]:
    """The numbers of the images of each split, class by class."""
    splits: dict[str, list[int]] = {"val": [], "train": []}
    for label in range(10):
        members = np.random.default_rng(label).permutation(np.flatnonzero(labels == label))
        splits["val"] += members[: len(members) // 5].tolist()
        splits["train"] += members[len(members) // 5 :].tolist()
    return splits


def _is_complete(root: Path) -> bool:
    return sum(1 for split in ("train", "val") for _ in root.glob(f"{split}/*/*.png")) == NUM_IMAGES


def _write_images(root: Path) -> None:
    images, labels = _load()
    for split, numbers in _splits(labels).items():
        for label in range(10):
            (root / split / str(label)).mkdir(parents=True)
        for number in numbers:
            image = Image.fromarray(images[number]).resize((EDGE, EDGE), Image.Resampling.BICUBIC)
            image.save(root / split / str(labels[number]) / f"{number:04d}.png")
