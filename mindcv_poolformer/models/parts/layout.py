"""How feature maps lie between the Cells.

Ascend: (N, C, H, W), with MindSpore's own convolution, pooling and GroupNorm. CPU: (N, H, W, C),
where a 1x1 convolution is one matrix product, and chains of elementwise operators that graph
kernels fuse (see ``runtime/cpu.py``). MindSpore 2.10's own operators are slow there: its oneDNN
takes a reference kernel for every larger convolution under AVX-512 and transposes around every 1x1
one, and its erf is scalar.

:func:`from_channels_first` and :func:`to_channels_first` stand where a map comes from or goes to
the outside. Both devices hold the same parameters, in the official shapes. A MetaFormer lays its
maps (N, H, W, C) on every device: linear layers, attention and norms over channels want them so,
and the official code has it too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import mindspore as ms
from mindspore import Tensor, nn
from mindspore.ops.primitive import constexpr

Layout = Literal["NCHW", "NHWC"]

_chosen: list[Layout] = []  # instead of the device's own, the last one counts


@contextmanager
def layout(name: Layout | None) -> Iterator[None]:
    """Lay maps so while the context lasts, on whatever device; None leaves the device its own.

    A Cell must be built, compiled and called in one layout: deploy forms lay their weights out for
    it, and a compiled graph keeps it.
    """
    if name is None:
        yield
        return
    _chosen.append(name)
    try:
        yield
    finally:
        _chosen.pop()


@constexpr
def channels_last() -> bool:
    """Whether maps are (N, H, W, C): on the CPU, unless :func:`layout` says otherwise."""
    return _chosen[-1] == "NHWC" if _chosen else ms.get_context("device_target") == "CPU"


def from_channels_first(x: Tensor) -> Tensor:
    """Lay a map (N, C, H, W) as the device likes it."""
    return move_channels_last(x) if channels_last() else x


def to_channels_first(x: Tensor) -> Tensor:
    """Lay a map (N, C, H, W) again, whatever the device likes."""
    return move_channels_first(x) if channels_last() else x


def move_channels_last(x: Tensor) -> Tensor:
    """Lay a map (N, C, H, W) as (N, H, W, C) on any device."""
    return _transpose(x, (0, 2, 3, 1))


def move_channels_first(x: Tensor) -> Tensor:
    """Lay a map (N, H, W, C) as (N, C, H, W) on any device."""
    return _transpose(x, (0, 3, 1, 2))


def _transpose(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    if x.dtype == ms.float16 and channels_last():
        # As graph kernels MindSpore 2.10 mixes up float16 where the last axis moves.
        return x.astype(ms.float32).transpose(axes).astype(ms.float16)
    return x.transpose(axes)


def on_channels_last(cell: nn.Cell, x: Tensor) -> Tensor:
    """Call a cell whose maps lie as the device likes them on a map (N, H, W, C)."""
    if channels_last():
        return cell(x)
    return cell(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)


def lay_channels_last(x: Tensor) -> Tensor:
    """Lay a map (N, H, W, C) that lies as the device likes it."""
    return x if channels_last() else x.transpose(0, 2, 3, 1)


def lay_for_device(x: Tensor) -> Tensor:
    """Lay a map (N, H, W, C) as the device likes it."""
    return x if channels_last() else x.transpose(0, 3, 1, 2)


def per_channel(vector: Tensor) -> Tensor:
    """Shape a vector (C,) so that it meets the channels of a map."""
    return vector if channels_last() else vector.reshape(-1, 1, 1)


def spatial_mean(x: Tensor) -> Tensor:
    """Average a map over height and width: (N, C)."""
    return x.mean((1, 2)) if channels_last() else x.mean((2, 3))
