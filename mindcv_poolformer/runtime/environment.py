"""What the environment's variables say; one that is set but empty says nothing."""

from __future__ import annotations

import os
import pwd
from importlib.util import find_spec
from pathlib import Path

from .errors import UserError


def whole_number(name: str, least: int) -> int | None:
    """The number that a variable holds, None where it is not set or empty.

    Raises:
        UserError: it holds something else, or less than ``least``.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        raise UserError(f"{name}: found {text!r}, expected an integer >= {least}, or it unset")
    return int(text)


def home() -> Path | None:
    """The user's home: $HOME, or else what the system's users say; None where neither does.

    A $HOME that is no absolute path counts as unset: its folders would be made where one works.
    """
    given = os.environ.get("HOME", "")
    if os.path.isabs(given):
        return Path(given)
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:  # a container that runs as a number
        return None


def check_log_levels() -> None:
    """Refuse what MindSpore would stop at, after thousands of lines of its log.

    Raises:
        UserError: a variable of a log level holds none.
    """
    for name in ("GLOG_v", "GLOG_stderrthreshold"):
        level = os.environ.get(name)
        if level and level not in ("0", "1", "2", "3", "4"):
            raise UserError(f"{name}: found {level!r}, expected 0 (all) to 4 (least), or it unset")


def is_installed(package: str) -> bool:
    """Whether a package can be imported; a folder of its name in the path is none."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


def check_mindspore(name: str) -> None:
    """Refuse what is no bundle where MindSpore is not installed.

    Args:
        name: of what is refused.

    Raises:
        UserError: it is not.
    """
    if not is_installed("mindspore"):
        raise UserError(
            f"{name}: found no bundle, and no package mindspore, expected either: "
            "pip install -r requirements.txt"
        )
