"""Pictures of numbers: one Matplotlib figure, drawn without a window and saved as PNG."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .environment import home

if TYPE_CHECKING:  # most commands draw nothing and need not wait for Matplotlib
    from matplotlib.figure import Figure

LONGEST_NAME = 24


@contextlib.contextmanager
def drawn(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Give an empty figure to draw on; after the block it stands in ``path``, 110 px to the inch.

    Names are drawn as they are: a ``$`` starts no formula, and a character that the font lacks is
    a box.

    Args:
        path: of the PNG.
        width, height: in inches.
    """
    if home() is None and not os.environ.get("MPLCONFIGDIR"):  # Matplotlib would not start
        os.environ["MPLCONFIGDIR"] = folder = tempfile.mkdtemp()
        atexit.register(shutil.rmtree, folder, ignore_errors=True)

    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
        yield figure
        figure.savefig(path, format="png")


def short(name: str) -> str:
    """A name on one line and not too long, to stand in a picture."""
    line = " ".join(printable(name).split())
    return line if len(line) <= LONGEST_NAME else line[: LONGEST_NAME - 1] + "…"


def printable(name: str) -> str:
    """A name as text, also where a file name is none."""
    return name.encode(errors="backslashreplace").decode()
