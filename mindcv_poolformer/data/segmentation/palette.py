"""The colours that pictures show classes in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import ade20k


def palette_of(classes: Sequence[str]) -> np.ndarray:
    """Give a colour for each class, RGB, (K, 3) uint8: ADE20K's own, or else those of PASCAL VOC.

    PASCAL VOC (devkit, VOClabelcolormap) spreads the bits of a class's number over the channels,
    the lowest ones first and at the highest places; class 0 is black.
    """
    if tuple(classes) == ade20k.names():
        return ade20k.colours()
    numbers = np.arange(len(classes))
    colours = np.zeros((len(classes), 3), np.uint8)
    for place in range(3):
        for channel in range(3):
            bit = numbers >> (3 * place + channel) & 1
            colours[:, channel] |= (bit << (7 - place)).astype(np.uint8)
    return colours
