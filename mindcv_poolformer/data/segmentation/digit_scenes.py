"""The segmentation demo's scenes: notes with scikit-learn's handwritten digits on grounds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..digits import digits_by_split, written_once
from .scenes import ANNOTATIONS, CLASSES, IMAGES

EDGE = 64  # of a scene, pixels
CELL = 32  # of a scene, which has four
FILLED = 0.6  # share of the cells that have a note in them
SIZES = (26, 32)  # of a note, lowest and highest edge
SCENES = {"train": 2000, "val": 100}


def write_digit_scenes(root: str | Path) -> None:
    """Write 2,100 scenes in ADE20K's layout, splits train and val, with ``classes.txt``.

    Each scene is 64 pixels wide and high and has up to four notes, dark squares with a digit each,
    one in a quarter; the class of a pixel is the digit of its note, or ground. Those of val show
    other handwriting than those of train. The folder appears as a whole or not at all, and always
    with the same content.

    Raises:
        UserError: ``root`` holds something else, or scikit-learn is not installed.
    """
    written_once(Path(root), "digit scenes", _is_complete, _write)


def _is_complete(root: Path) -> bool:
    return all(
        sum(1 for _ in root.glob(f"{kind}/{split}/*.png")) == count
        for split, count in SCENES.items()
        for kind in (IMAGES, ANNOTATIONS)
    )


def _write(root: Path) -> None:
    (root / CLASSES).write_text("\n".join(["ground", *map(str, range(10))]) + "\n")
    for split, digits in digits_by_split().items():
        for kind in (IMAGES, ANNOTATIONS):
            (root / kind / split).mkdir(parents=True)
        for number in range(SCENES[split]):
            picture, notes = digit_scene(digits, split, number)
            label = np.zeros((EDGE, EDGE), np.uint8)  # 0 is ground, k + 1 the digit k
            for note in notes:
                label[note.place] = note.digit + 1
            Image.fromarray(picture).save(root / IMAGES / split / f"{number:04d}.png")
            Image.fromarray(label).save(root / ANNOTATIONS / split / f"{number:04d}.png")


@dataclass(frozen=True)
class Note:
    """A square on a scene with a digit on it; pixels from its upper left corner on."""

    digit: int
    top: int
    left: int
    size: int

    @property
    def place(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        return slice(self.top, self.top + self.size), slice(self.left, self.left + self.size)


def digit_scene(
    digits: list[tuple[int, np.ndarray]], split: str, number: int
) -> tuple[np.ndarray, list[Note]]:
    """Draw scene number `number` of a split: (H, W, 3) uint8, and the notes that lie on it.

    Args:
        digits: those of the split, see :func:`digits_by_split`.
        split: one of SCENES.
        number: of the scene, always the same one.
    """
    rng = np.random.default_rng([number, sorted(SCENES).index(split)])
    notes = []
    picture = _texture(rng)
    for corner in np.ndindex(EDGE // CELL, EDGE // CELL):
        if rng.random() >= FILLED:
            continue
        digit, pixels = digits[rng.integers(len(digits))]
        size = int(rng.integers(SIZES[0], SIZES[1] + 1))
        ink = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
        share = np.asarray(ink, np.float32)[..., None] / 255
        top, left = rng.integers(CELL - size + 1, size=2) + CELL * np.array(corner)
        notes.append(Note(digit, int(top), int(left), size))
        picture[notes[-1].place] = share * rng.uniform(190, 255, 3)
    return picture.round().astype(np.uint8), notes


def _texture(rng: np.random.Generator) -> np.ndarray:
    """Draw a ground (H, W, 3) float32: blots of colour, and grain."""
    blots = Image.fromarray(rng.integers(40, 200, (6, 6, 3), dtype=np.uint8))
    smooth = np.asarray(blots.resize((EDGE, EDGE), Image.Resampling.BICUBIC), np.float32)
    return (smooth + rng.normal(0, 8, (EDGE, EDGE, 1))).clip(0, 255).astype(np.float32)
