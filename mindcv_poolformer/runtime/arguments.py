"""Small command lines, whose errors take one line."""

from __future__ import annotations

import argparse
import math
from typing import NoReturn


class OneLineParser(argparse.ArgumentParser):
    """Argparse that raises an ArgumentError, for `errors.run`, instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        raise argparse.ArgumentError(None, message)


def fraction(text: str) -> float:
    """Read a number from 0 to 1, for ``type=`` of an argument."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number from 0 to 1")
    return value


def at_least_one(text: str) -> int:
    """Read a count, for ``type=`` of an argument."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected an integer >= 1")
    return int(text)


def port(text: str) -> int:
    """Read the number of a port, for ``type=`` of an argument."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a port from 1 to 65535")
    return int(text)
