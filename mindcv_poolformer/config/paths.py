"""Paths as a shell reads them: a recipe is read by none."""

from __future__ import annotations

import os
import re

from ..runtime.environment import home

_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", re.ASCII)


def expanded(text: str) -> str:
    """``text`` with ``~``, ``~name``, ``$NAME`` and ``${NAME}`` replaced; a URL stays as it is.

    Raises:
        ValueError: such as "HOME unset": what is missing.
    """
    if "://" in text:
        return text
    if text == "~" or text.startswith("~/"):
        folder = home()
        if folder is None:
            raise ValueError("no home folder")
        text = str(folder) + text[1:]
    elif text.startswith("~"):
        text = os.path.expanduser(text)  # a name that no user has stays
    return _VARIABLE.sub(_value, text)


def _value(match: re.Match[str]) -> str:
    name = match[1] or match[2]
    value = os.environ.get(name)
    if not value:  # an empty one would make $DATA/train the root's
        raise ValueError(f"{name} unset")
    return value
