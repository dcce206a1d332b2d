"""The best of many, and rows by their number, with static shapes."""

from __future__ import annotations

from mindspore import Tensor, ops


def top(scores: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Give the largest along the last axis, the largest first, and their numbers, int32.

    Where there are fewer than ``most`` it is filled up with scores of 0, and the number 0.
    """
    count = min(most, scores.shape[-1])
    best, order = ops.TopK(True)(scores, count)
    if count < most:
        filling = (*scores.shape[:-1], most - count)
        best = ops.concat((best, ops.zeros(filling, best.dtype)), -1)
        order = ops.concat((order, ops.zeros(filling, order.dtype)), -1)
    return best, order


def rows_of_each(x: Tensor, order: Tensor) -> Tensor:
    """Take the rows of these numbers, of each image its own.

    Args:
        x: (N, n, ...).
        order: (N, m), from 0 to n - 1.
    """
    return ops.gather(x, order, 1, 1)
