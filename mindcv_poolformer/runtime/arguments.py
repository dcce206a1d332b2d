"""Small command lines, whose errors take one line."""

from __future__ import annotations

import argparse
from typing import NoReturn


class OneLineParser(argparse.ArgumentParser):
    """Argparse that raises an ArgumentError, for `errors.run`, instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        raise argparse.ArgumentError(None, message)


def at_least_one(text: str) -> int:
    """Read a count, for ``type=`` of an argument."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected an integer >= 1")
    return int(text)
