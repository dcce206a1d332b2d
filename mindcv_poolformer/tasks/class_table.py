"""What a validation tells of each class on the screen."""

from __future__ import annotations

import numpy as np

MOST = 20  # classes that are told of


def class_table(table: str, scores: np.ndarray, name: str) -> list[str]:
    """Give the lines of a table of classes; of many, those with the lowest score.

    Args:
        table: a head, and a line for each class.
        scores: (classes,), NaN where there is none.
        name: of the score, such as IoU.
    """
    lines = table.splitlines()
    if len(scores) <= MOST:
        return lines
    worst = [index for index in scores.argsort(kind="stable") if not np.isnan(scores[index])]
    head = f"the {MOST} of {len(scores)} classes with the lowest {name}:"
    return [head, lines[0], *(lines[1 + index] for index in worst[:MOST])]
