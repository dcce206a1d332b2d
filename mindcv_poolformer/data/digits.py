"""The demo's images: scikit-learn's handwritten digits as a folder in ImageNet's layout."""

from __future__ import annotations

import shutil
import tempfile
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
    root = Path(root)
    if _is_complete(root):
        return
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(
            f"{root} exists but is not the complete digits data set; remove it or name another"
        )
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError(
            "the digits data set needs scikit-learn, which is not installed: "
            "pip install scikit-learn"
        ) from None
    digits = load_digits()
    root.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    temporary.chmod(0o755)  # mkdtemp's 0o700 would hide the data from other users
    try:
        _write_images(temporary, digits.images, digits.target)
        temporary.rename(root)
    except OSError:
        # Another process may have put the same folder there in the meantime.
        if not _is_complete(root):
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_complete(root: Path) -> bool:
    return sum(1 for split in ("train", "val") for _ in root.glob(f"{split}/*/*.png")) == NUM_IMAGES


def _write_images(root: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Images (N, 8, 8) of 0 to 16, labels (N,)."""
    for label in range(10):
        members = np.random.default_rng(label).permutation(np.flatnonzero(labels == label))
        split_of = {"val": members[: len(members) // 5], "train": members[len(members) // 5 :]}
        for split, chosen in split_of.items():
            folder = root / split / str(label)
            folder.mkdir(parents=True)
            for number in chosen:
                pixels = np.rint(images[number] * (255 / 16)).astype(np.uint8)
                image = Image.fromarray(pixels).resize((EDGE, EDGE), Image.Resampling.BICUBIC)
                image.save(folder / f"{number:04d}.png")
