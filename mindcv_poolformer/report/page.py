"""``index.html`` of a report: its scores and pictures in one file that can be sent around."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..runtime.figures import printable
from .findings import Findings

PAGE = "index.html"
_MOST_PAIRS = 12
_HEADINGS = {
    "confusion.png": "Who is taken for whom",
    "per_class.png": "Accuracy of each class",
    "mistakes.png": "The most confident mistakes",
    "calibration.png": "Is the confidence right?",
}
_STYLE = """
body { font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }
img { max-width: 100% }
table { border-collapse: collapse }
th, td { text-align: left; padding: .15em 1.5em .15em 0; border-bottom: 1px solid #ddd }
"""


def write_page(
    folder: Path,
    findings: Findings,
    facts: Mapping[str, Any],
    tables: Mapping[str, str],
    pictures: Sequence[str],
) -> None:
    """Write the page into a folder that holds the pictures; they become part of it.

    Args:
        folder: of the report.
        findings: of all images.
        facts: a JSON object of what was validated and how, and its scores.
        tables: what each file is, to link to.
        pictures: file names.
    """
    body = [f"<h1>{_text(facts['model'])}</h1>", _table(_scores(findings, facts))]
    for name in sorted(pictures, key=list(_HEADINGS).index):
        data = base64.b64encode((folder / name).read_bytes()).decode()
        heading = _HEADINGS[name]
        body.append(f'<h2>{heading}</h2>\n<img alt="{heading}" src="data:image/png;base64,{data}">')
        if name == "confusion.png" and (pairs := _pairs(findings)):
            body.append(_table([("class", "taken for", "images"), *pairs], head=True))
    links = ((f'<a href="{name}">{name}</a>', _text(told)) for name, told in tables.items())
    body.append("<h2>Tables</h2>\n" + _table(links, html=True))
    page = (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f"<title>{_text(facts['model'])}: validation</title>\n<style>{_STYLE}</style>\n"
        + "\n".join(body)
        + "\n</html>\n"
    )
    (folder / PAGE).write_text(page, encoding="utf-8")


def _scores(findings: Findings, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was validated, and what was found, in words."""
    rows = [(key, facts[key]) for key in ("checkpoint", "bundle", "data") if key in facts]
    rows += [(key, facts[key]) for key in ("form", "precision", "amp_level") if key in facts]
    rows += [("images", f"{facts['images']:,}"), ("result", str(findings.result))]
    rows += [("expected calibration error", f"{findings.calibration_error:.2%}")]
    if findings.compared:
        level = facts["compared"]["amp_level"]
        rows += [
            (f"compared with {level}", str(findings.compared)),
            ("predicted differently", f"{len(findings.disagreements):,} images"),
        ]
    return rows


def _pairs(findings: Findings) -> list[tuple[str, str, str]]:
    names = findings.classes
    return [
        (names[label], names[prediction], str(images))
        for label, prediction, images in findings.most_confused(_MOST_PAIRS)
    ]


def _table(rows: Iterable[Sequence[str]], head: bool = False, html: bool = False) -> str:
    """Rows of cells; ``head`` makes the first one headings, ``html`` takes cells as they are."""
    lines = []
    for number, row in enumerate(rows):
        tag = "th" if head and number == 0 else "td"
        cells = "".join(f"<{tag}>{cell if html else _text(cell)}</{tag}>" for cell in row)
        lines.append(f"<tr>{cells}</tr>")
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _text(value: str) -> str:
    return escape(printable(value))
