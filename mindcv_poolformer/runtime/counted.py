"""A number and the noun after it, as English has them."""

from __future__ import annotations


def counted(count: int, one: str, several: str = "") -> str:
    """Give both, such as "1 epoch", "12 classes" or "1,949 images".

    Args:
        count: how many.
        one: the word for a single one.
        several: the word for more, where it is not ``one`` with an s, or after an s with es.
    """
    several = several or f"{one}{'es' if one.endswith('s') else 's'}"
    return f"{count:,} {one if count == 1 else several}"
