"""An environment of the packages that `pip install .` brings, and no other: no MindSpore.

Links to those that are installed here; what pyproject.toml does not name is not found in it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from scripts import ROOT

PYTHON = (sys.executable, "-S")  # -S: not what this interpreter's environment has


def without_mindspore(folder: Path, *extras: str) -> dict[str, str]:
    """Make the environment in a folder; give the variable that has ``PYTHON`` use it.

    Args:
        folder: new or empty.
        extras: of pyproject.toml, whose packages are wanted too.
    """
    wanted = [("mindcv_poolformer", extra) for extra in ("", *extras)]
    done: set[tuple[str, str]] = set()
    while wanted:
        name, extra = wanted.pop()
        if (name, extra) in done:
            continue
        done.add((name, extra))
        for requirement in _needs(name, extra):
            wanted += [
                (canonicalize_name(requirement.name), one) for one in ("", *requirement.extras)
            ]
    for name in {name for name, _ in done} - {"mindcv_poolformer"}:
        _link(name, folder)
    return {"PYTHONPATH": f"{folder}:{ROOT}", "PYTHONNOUSERSITE": "1"}


def _link(name: str, folder: Path) -> None:
    """Link to each file of a distribution: several have parts of google, of opentelemetry."""
    installed = distribution(name)
    for file in installed.files or ():
        if ".." not in file.parts and file.suffix != ".pyc":
            link = folder / file
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(str(installed.locate_file(file)))


def _needs(name: str, extra: str) -> Iterator[Requirement]:
    """What a distribution requires, with one of its extras or none."""
    for text in distribution(name).requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement
