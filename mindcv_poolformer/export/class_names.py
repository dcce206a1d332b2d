"""Names of a bundle's classes."""

from __future__ import annotations

from collections.abc import Sequence


def with_numbers(names: Sequence[str], count: int) -> tuple[str, ...]:
    """Give a name for each of so many classes: its number where there is none, which is said."""
    if len(names) < count:
        print(f"classes: outputs {len(names)} to {count - 1} have no name, so their number is it")
    return (*names, *map(str, range(len(names), count)))
