"""``index.html`` of a report: its scores and pictures in one file that can be sent around."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..runtime.counted import counted
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
    shown = {name: _HEADINGS[name] for name in sorted(pictures, key=list(_HEADINGS).index)}
    pairs = _pairs(findings)
    below = {}
    if pairs:
        below["confusion.png"] = table([("class", "taken for", "images"), *pairs], head=True)
    scores = table(_scores(findings, facts))
    page = page_of(str(facts["model"]), folder, scores, shown, tables, below)
    (folder / PAGE).write_text(page, encoding="utf-8")


def page_of(
    model: str,
    folder: Path,
    scores: str,
    pictures: Mapping[str, str],
    files: Mapping[str, str],
    below: Mapping[str, str] | None = None,
) -> str:
    """Give a page of a report.

    Args:
        model: name of the model.
        folder: that holds the pictures, which become part of the page.
        scores: HTML of what was validated, and what was found.
        pictures: the heading of each.
        files: what each is, to link to.
        below: HTML to stand below a picture.
    """
    body = [f"<h1>{_text(model)}</h1>", scores]
    for name, heading in pictures.items():
        data = base64.b64encode((folder / name).read_bytes()).decode()
        body.append(f'<h2>{heading}</h2>\n<img alt="{heading}" src="data:image/png;base64,{data}">')
        if below and name in below:
            body.append(below[name])
    links = ((f'<a href="{name}">{name}</a>', _text(told)) for name, told in files.items())
    body.append("<h2>Tables</h2>\n" + table(links, html=True))
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f"<title>{_text(model)}: validation</title>\n<style>{_STYLE}</style>\n"
        + "\n".join(body)
        + "\n</html>\n"
    )


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
            ("predicted differently", counted(len(findings.disagreements), "image")),
        ]
    return rows


def _pairs(findings: Findings) -> list[tuple[str, str, str]]:
    names = findings.classes
    return [
        (names[label], names[prediction], str(images))
        for label, prediction, images in findings.most_confused(_MOST_PAIRS)
    ]


def table(rows: Iterable[Sequence[str]], head: bool = False, html: bool = False) -> str:
    """Rows of cells; ``head`` makes the first one headings, ``html`` takes cells as they are."""
    lines = []
    for number, row in enumerate(rows):
        tag = "th" if head and number == 0 else "td"
        cells = "".join(f"<{tag}>{cell if html else _text(cell)}</{tag}>" for cell in row)
        lines.append(f"<tr>{cells}</tr>")
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _text(value: str) -> str:
    return escape(printable(value))
