"""Generators of random numbers, each a pure function of what is drawn and for whom."""

from __future__ import annotations

import numpy as np

# First word of each generator's key, so that no two kinds of draw share a stream.
ORDER, IMAGE, BATCH, DROP_PATH, SUBSTITUTE, DROPOUT, SAMPLING = range(7)


def generator(kind: int, *coordinates: int) -> np.random.Generator:
    """Give the generator of a kind of draw at its coordinates, such as seed, rank and epoch."""
    return np.random.default_rng([kind, *coordinates])
