"""The neck between a backbone and the heads of dense prediction.

Lin et al., "Feature Pyramid Networks for Object Detection", arXiv 1612.03144, as MMDetection and
MMSegmentation build it; parameter names are theirs. Maps lie as the device likes them, see
``parts/layout.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import XavierUniform, Zero
from mindspore.ops.primitive import constexpr

from ..classifier import initialize
from ..parts.convolutions import PointwiseConv, SpatialConv, StridedConv
from ..parts.layout import channels_last
from ..parts.resizing import resize_nearest, size_of


class ConvModule(nn.Cell):
    """A convolution by the name that it has in MMCV's module of the same name."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def construct(self, x: Tensor) -> Tensor:
        return self.conv(x)


class FPN(nn.Cell):
    """Maps of a backbone, the finest first, to as many maps of equal channels and the same sizes.

    Each map gets what the coarser ones know: a 1x1 convolution of each, from the coarsest on the
    nearest neighbours added to the next finer one, and a 3x3 convolution of each sum.

    Args:
        in_channels: of each map.
        channels: of what it gives.
        coarser_levels: further maps, each half as high and wide as the one before it: a strided
            3x3 convolution of the backbone's last map, and of each of these again, as RetinaNet
            has two (arXiv 1708.02002, section 4). There is no activation between them.
    """

    def __init__(
        self, in_channels: Sequence[int], channels: int = 256, coarser_levels: int = 0
    ) -> None:
        super().__init__()
        self.coarser_levels = coarser_levels
        self.lateral_convs = nn.CellList(
            [ConvModule(PointwiseConv(before, channels)) for before in in_channels]
        )
        convs: list[nn.Conv2d] = [SpatialConv(channels, channels) for _ in in_channels]
        for level in range(coarser_levels):
            before = channels if level else in_channels[-1]
            convs.append(StridedConv(before, channels, kernel_size=3, stride=2, padding=1))
        self.fpn_convs = nn.CellList([ConvModule(conv) for conv in convs])
        for module in (*self.lateral_convs, *self.fpn_convs):
            initialize(module.conv.weight, XavierUniform())
            initialize(module.conv.bias, Zero())

    def construct(self, maps: Sequence[Tensor]) -> list[Tensor]:
        finer = [lateral(x) for lateral, x in zip(self.lateral_convs, maps)]
        sums = finer[-1:]
        for x in finer[-2::-1]:
            # To the finer map's own size: where it is odd, that is not twice the coarser one's.
            sums.append(x + resize_nearest(sums[-1], size_of(x)))
        levels = [conv(x) for conv, x in zip(self.fpn_convs, sums[::-1])]
        x = maps[-1]
        for level in range(self.coarser_levels):
            x = self.fpn_convs[len(sums) + level](x)
            levels.append(x)
        return levels


def every_second_place(x: Tensor) -> Tensor:
    """Take every second row and column of a map, the first ones included.

    A Mask R-CNN has its coarsest level from the one before it so; MMDetection writes it as a max
    pooling of one place.
    """
    # Not as x[:, ::2, ::2], whose gradient MindSpore 2.10 has no room for on a CPU.
    first = 1 if channels_last() else 2
    for axis in (first, first + 1):
        x = ops.gather(x, _even_numbers(x.shape[axis]), axis)
    return x


@constexpr
def _even_numbers(end: int) -> Tensor:
    return Tensor(np.arange(0, end, 2, dtype=np.int32))
