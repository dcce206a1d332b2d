"""The folder of a report: tables, pictures, ``report.json`` and a page that shows them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..runtime.errors import UserError
from ..runtime.files import replaced_folder
from . import pictures
from .findings import Findings
from .page import PAGE, write_page
from .tables import write_tables

DESCRIPTION = "report.json"
_TABLES = ("confusion", "per_class", "mistakes", "calibration", "disagreements")
_PICTURES = {
    "confusion.png": pictures.draw_confusion,
    "per_class.png": pictures.draw_per_class,
    "calibration.png": pictures.draw_calibration,
    "mistakes.png": pictures.draw_mistakes,
}
SCENES = {"scenes.csv", "worst.png", "labels", "coloured"}  # of a segmentation, beside those
DETECTIONS = {"pictures.csv", "precision_recall.png", "results.bbox.json", "results.segm.json"}
_OURS = {*SCENES, *DETECTIONS, DESCRIPTION, PAGE, *_PICTURES, *(f"{name}.csv" for name in _TABLES)}


def check_target(folder: Path, overwrite: bool) -> None:
    """Refuse to write over what is not to be lost, and where nothing can be written.

    Raises:
        UserError: ``folder`` exists without ``overwrite``, or is or holds something else than a
            report, or what is above it is no folder, or one that cannot be written to.
    """
    if folder.exists():
        if not overwrite:
            raise UserError(f"report: {folder} exists, expected a new folder, or --overwrite")
        if not folder.is_dir() or not {entry.name for entry in folder.iterdir()} <= _OURS:
            raise UserError(
                f"report: found {folder} to be or to hold something else than a report, "
                "expected a report to overwrite"
            )
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise UserError(f"report: found {above} above {folder}, expected a folder to write to")


def write_report(folder: Path, findings: Findings, facts: Mapping[str, Any]) -> None:
    """Write a report; ``folder`` holds all of it or is as before.

    Args:
        folder: see :func:`check_target`.
        findings: of all images.
        facts: what was validated and how, and its scores; for ``report.json`` and the page.

    Raises:
        UserError: the folder cannot be written.
    """
    with replaced_folder(folder) as staging:
        files = write_tables(staging, findings)
        drawn = [name for name in _PICTURES if name != "mistakes.png" or len(findings.mistakes)]
        for name in drawn:
            _PICTURES[name](staging / name, findings)
        description = {
            **facts,
            "calibration_error": findings.calibration_error,
            "mistakes": len(findings.mistakes),
        }
        if findings.compared:
            description["disagreements"] = len(findings.disagreements)
        description["report"] = [PAGE, *files, *drawn]
        (staging / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
        write_page(staging, findings, description, files, drawn)
