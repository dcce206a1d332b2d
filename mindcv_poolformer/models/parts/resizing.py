"""Maps at other sizes, as PyTorch resizes them with ``align_corners=False``.

Maps lie as the device likes them, but for :func:`resize_channels_first`. ``ops.interpolate`` gives
the same and takes seconds longer to compile.
"""

from __future__ import annotations

from mindspore import Tensor, ops

from .layout import channels_last, from_channels_first, to_channels_first


def size_of(x: Tensor) -> tuple[int, int]:
    """Give height and width of a map."""
    return (x.shape[1], x.shape[2]) if channels_last() else (x.shape[2], x.shape[3])


def resize_bilinear(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a map to a height and width, half-pixel centres, without antialiasing."""
    if size_of(x) == size:
        return x
    return from_channels_first(resize_channels_first(to_channels_first(x), size))


def resize_channels_first(x: Tensor, size: tuple[int, int]) -> Tensor:
    """As :func:`resize_bilinear`, of a map (N, C, H, W)."""
    if (x.shape[2], x.shape[3]) == size:
        return x
    return ops.ResizeBilinearV2(False, True)(x, size)


def resize_nearest(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a map; place i of the new ones is floor(i * old / new) of the old."""
    if size_of(x) == size:
        return x
    return from_channels_first(ops.ResizeNearestNeighbor(size)(to_channels_first(x)))
