"""The heads of a Mask R-CNN: of anchors, of boxes, and of the pixels within them.

See :mod:`mask_rcnn` for the sources.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import HeNormal, Normal, XavierNormal, Zero

from ..classifier import initialize
from ..parts.convolutions import PointwiseConv, SpatialConv
from ..parts.layout import (
    channels_last,
    lay_channels_last,
    move_channels_last,
    to_channels_first,
)
from ..parts.resizing import size_of
from .atlas import apart, side_by_side
from .fpn import ConvModule
from .levels import Levels
from .roi_align import level_of, roi_align

STRIDES = (4, 8, 16, 32, 64)
BOX_SIZE, MASK_SIZE = 7, 14  # of the values within a box that the two heads see
MASK_EDGE = 2 * MASK_SIZE  # of what the second of them gives


class RPNHead(nn.Cell):
    """Maps of an FPN to a logit, object or not, and box differences of each anchor."""

    def __init__(self, channels: int, anchors_per_place: int) -> None:
        super().__init__()
        self.rpn_conv = SpatialConv(channels, channels)
        self.rpn_cls = PointwiseConv(channels, anchors_per_place)
        self.rpn_reg = PointwiseConv(channels, anchors_per_place * 4)
        for conv in (self.rpn_conv, self.rpn_cls, self.rpn_reg):
            initialize(conv.weight, Normal(0.01))
            initialize(conv.bias, Zero())

    def construct(self, maps: Levels) -> tuple[list[Tensor], list[Tensor]]:
        if not channels_last():
            found = [self.look(x) for x in maps]
            return [logits for logits, _ in found], [deltas for _, deltas in found]
        sizes = tuple([size_of(x) for x in maps])
        logits, deltas = self.look(side_by_side(maps, sizes))
        return apart(logits, sizes), apart(deltas, sizes)

    def look(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Give logits and box differences of a map."""
        x = ops.relu(self.rpn_conv(x))
        return self.rpn_cls(x), self.rpn_reg(x)


class BoxHead(nn.Cell):
    """Values within boxes to logits, background the last of them, and differences of each class."""

    def __init__(self, channels: int, num_classes: int, hidden: int = 1024) -> None:
        super().__init__()
        self.shared_fcs = nn.CellList(
            [nn.Dense(channels * BOX_SIZE**2, hidden), nn.Dense(hidden, hidden)]
        )
        self.fc_cls = nn.Dense(hidden, num_classes + 1)
        self.fc_reg = nn.Dense(hidden, num_classes * 4)
        for layer in self.shared_fcs:
            initialize(layer.weight, XavierNormal())
        initialize(self.fc_cls.weight, Normal(0.01))
        initialize(self.fc_reg.weight, Normal(0.001))
        for layer in (*self.shared_fcs, self.fc_cls, self.fc_reg):
            initialize(layer.bias, Zero())

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = to_channels_first(x)
        x = x.reshape(x.shape[0], -1)
        for layer in self.shared_fcs:
            x = ops.relu(layer(x))
        return self.fc_cls(x), self.fc_reg(x)


class Doubling(nn.Conv2dTranspose):
    """A transposed convolution of 2x2, stride 2: each place becomes four.

    On the CPU one product.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 2, stride=2, pad_mode="valid", has_bias=True)

    def construct(self, x: Tensor) -> Tensor:
        if not channels_last():
            return super().construct(x)
        n, height, width, channels = x.shape
        weight = move_channels_last(self.weight.astype(x.dtype)).reshape(channels, -1)
        y = ops.MatMul()(x.reshape(-1, channels), weight)
        y = y.reshape(n, height, width, 2, 2, self.out_channels).transpose(0, 1, 3, 2, 4, 5)
        y = y.reshape(n, 2 * height, 2 * width, self.out_channels)
        return y + self.bias.astype(x.dtype)


class MaskHead(nn.Cell):
    """Values within boxes to logits of each class and pixel, twice as high and wide."""

    def __init__(self, channels: int, num_classes: int, depth: int = 4) -> None:
        super().__init__()
        self.convs = nn.CellList(
            [ConvModule(SpatialConv(channels, channels)) for _ in range(depth)]
        )
        self.upsample = Doubling(channels)
        self.conv_logits = PointwiseConv(channels, num_classes)
        for conv in (*[module.conv for module in self.convs], self.upsample, self.conv_logits):
            initialize(conv.weight, HeNormal(mode="fan_out", nonlinearity="relu"))
            initialize(conv.bias, Zero())

    def construct(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = ops.relu(conv(x))
        return self.conv_logits(ops.relu(self.upsample(x)))


class RoIHead(nn.Cell):
    """What looks at boxes: by their own name the heads for boxes and for masks."""

    takes_boxes = True  # see :mod:`runtime.amp`

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.bbox_head = BoxHead(channels, num_classes)
        self.mask_head = MaskHead(channels, num_classes)

    def boxes(self, maps: Levels, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Give logits (N n, num_classes + 1) and differences (N n, num_classes, 4) of boxes.

        Args:
            maps: of the levels at strides 4 to 32, as the device likes them.
            boxes: (N, n, 4).
        """
        logits, deltas = self.bbox_head(values_within(maps, boxes, BOX_SIZE))
        return logits, deltas.reshape(-1, self.num_classes, 4)

    def masks(self, maps: Levels, boxes: Tensor, labels: Tensor) -> Tensor:
        """Give the logits of each box's own class, (N n, 28, 28).

        Args:
            maps: as for :meth:`boxes`.
            boxes: (N, n, 4).
            labels: (N, n).
        """
        x = lay_channels_last(self.mask_head(values_within(maps, boxes, MASK_SIZE)))
        own = ops.arange(self.num_classes).astype(ms.int32) == labels.reshape(-1, 1)
        return (x * own.astype(x.dtype).reshape(-1, 1, 1, self.num_classes)).sum(-1)


def values_within(maps: Levels, boxes: Tensor, size: int, reach: float = 1.0) -> Tensor:
    """RoIAlign of each box on the level that fits its size: (N n, C, size, size).

    Args:
        maps: of the levels at strides 4 to 32, as the device likes them.
        boxes: (N, n, 4).
        size: bins along each axis.
        reach: how many times as long as the image a box may be.
    """
    levels = level_of(boxes, len(maps)).expand_dims(-1)
    total = 0.0
    for level, (x, stride) in enumerate(zip(maps, STRIDES)):
        # On the other levels a box without an area, which gives zeros.
        here = boxes * (levels == level).astype(boxes.dtype)
        total = total + roi_align(x, here, 1 / stride, size, reach)
    return total
