"""Automatic mixed precision: what runs in float16.

O0 keeps float32. O2 runs everything in float16 but BatchNorm and LayerNorm, of which PoolFormer
has none. O3 runs the whole network in float16, on the CPU with the statistics of the norms and
GELU's arithmetic in float32. ``auto`` keeps the operators that need range, GroupNorm among them, in
float32. Parameters stay float32 in each of them.
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Tensor, amp, nn, ops
from mindspore._c_expression import Cell_, MixedPrecisionType
from mindspore.ops.primitive import constexpr


def _in_float32(output: Tensor) -> Tensor:
    return output.astype(ms.float32)


class _Float32Output(nn.Cell):
    """Calls a network and gives its logits in float32, so that the loss is float32 too."""

    def __init__(self, network: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.hyper_map = ops.HyperMap()

    def construct(self, *inputs: Tensor) -> Tensor | tuple[Any, ...]:
        return self.hyper_map(_in_float32, self.network(*inputs))


def mixed_precision(network: nn.Cell, level: str) -> nn.Cell:
    """Give the cell that runs ``network``, whose outputs are Tensors of floats, at an AMP level.

    The network itself is changed, its parameters and their names are not. Use only the cell that
    comes back: it holds the cast of the outputs to float32.

    Args:
        network: images and further inputs to logits.
        level: O0, O2, O3 or auto.
    """
    if level == "O0":
        return network
    converted = amp.auto_mixed_precision(network, level)
    _leave_boxes_alone(network)
    _leave_arithmetic_alone(network)
    return _Float32Output(converted)


def _leave_boxes_alone(network: nn.Cell) -> None:
    """Have Cells that say so, by an attribute ``takes_boxes``, take what they are given as it is.

    O2 and O3 cast what each Cell is given, and its methods too: boxes, of which float16 holds few
    exactly, nor the area of large ones. The Cells within cast their maps themselves.
    """
    for _, cell in network.cells_and_names():
        if getattr(cell, "takes_boxes", False):
            cell.add_flags(fp16=False)
            Cell_.set_mixed_precision_type(cell, MixedPrecisionType.NOTSET)


def _leave_arithmetic_alone(network: nn.Cell) -> None:
    """Have PyNative mode cast what convolutions and linear layers are given, and nothing else.

    In graph mode O2 and O3 cast what a Cell is given. In PyNative mode MindSpore casts what each
    operator in a Cell is given, so that a norm's float32 sum of squares would overflow in float16.
    The attribute is read in PyNative mode alone.
    """
    for _, cell in network.cells_and_names():
        if not isinstance(cell, (nn.Dense, nn.Conv2d)):
            cell.mixed_precision_type = MixedPrecisionType.NOTSET


def gradients_finite(gradients: tuple[Tensor, ...], norm: Tensor) -> Tensor:
    """Tell, as a scalar bool Tensor, whether no gradient of this rank overflowed.

    A finite global ``norm`` has no Inf or NaN in it: two small operators for each gradient. Ascend
    has one for all of them, which ``amp.all_finite`` calls; on a 910, which saturates instead of
    overflowing, that reads and clears the device's overflow status.
    """
    return amp.all_finite(gradients) if _on_ascend() else ops.isfinite(norm)


@constexpr
def _on_ascend() -> bool:
    return ms.get_context("device_target") == "Ascend"
