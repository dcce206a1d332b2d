"""Which anchors, or proposals, of an image a training step learns from.

Ren et al., arXiv 1506.01497, section 3.1.3: a fixed number, at most a part of them objects, drawn
without replacement. The draws are inputs, so that a step repeats exactly.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor

from .assignment import BACKGROUND
from .selection import top

OBJECTS = 3.0  # from here on what precedence gives is of objects; background may round up to 2


def precedence(assigned: Tensor, draws: Tensor, most_objects: int) -> Tensor:
    """Give in which order anchors are taken, float32 (N, A): the largest first, 0 for never.

    Objects, as many as may be, have OBJECTS or more, background from 1 to 2. Within each the
    largest draw comes first.

    Args:
        assigned: (N, A), of an :class:`Assignment`.
        draws: (N, A), from 0 up to 1, without 1.
        most_objects: how many objects an image may have.
    """
    objects = (assigned >= 0).astype(ms.float32) * (draws + OBJECTS)
    least = top(objects, most_objects)[0][:, -1:]
    objects = objects * (objects >= least).astype(ms.float32)
    return objects + (assigned == BACKGROUND).astype(ms.float32) * (draws + 1.0)


def sample(
    assigned: Tensor, draws: Tensor, most: int, most_objects: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw anchors, objects first and then background.

    Args:
        assigned: as for :func:`precedence`, and so are the others.
        draws: (N, A).
        most: how many an image may have.
        most_objects: how many of them may be objects.

    Returns:
        their numbers (N, most) int32; whether each is an object, bool; whether each counts, bool,
        which it does not where there are fewer than ``most``.
    """
    order, numbers = top(precedence(assigned, draws, most_objects), most)
    return numbers, order >= OBJECTS, order >= 1.0
