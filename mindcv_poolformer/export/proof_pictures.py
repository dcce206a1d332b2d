"""Pictures to prove segmenters and detectors on."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from ..data.folder import find_images
from ..data.photographs import PHOTOGRAPHS, photographs
from ..data.preprocess import open_image

MOST_PICTURES = 2  # in one run: their maps are large


def proof_pictures(folder: Path, given: str) -> tuple[list[Image.Image], str]:
    """Two pictures to prove an export on, and where they are from.

    Args:
        folder: those of the validation split; where there is none, they are scikit-learn's.
        given: a picture or folder to take instead, empty for none.
    """
    if given:
        paths, origin = find_images([given]), "sample_images"
    elif folder.is_dir():
        paths, origin = find_images([folder]), "val_split"
    else:
        origin = f"scikit-learn's {' and '.join(PHOTOGRAPHS)}"
        print(f"sample_images: found no folder {folder}, so the proof is on {origin}")
        return photographs(3), origin
    return [open_image(path) for path in paths[:MOST_PICTURES]], origin
