"""Semantic FPN: a class for each place of an image.

Kirillov et al., "Panoptic Feature Pyramid Networks", arXiv 1901.02446, section 3.1, as
sail-sg/poolformer trains it with MMSegmentation 0.19; parameter names are those of its checkpoints,
but for MindSpore's ``gamma``, ``beta``, ``moving_mean`` and ``moving_variance`` of norms. Maps
between the Cells lie as the device likes them, see ``parts/layout.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import HeNormal, Normal, Zero

from ..classifier import StagedClassifier, initialize
from ..parts.batch_norm import BatchNorm
from ..parts.convolutions import PointwiseConv, SpatialConv
from ..parts.layout import channels_last, to_channels_first
from ..parts.resizing import resize_bilinear, resize_channels_first, size_of
from .fpn import FPN
from .on_backbone import OnBackbone


class ConvNormReLU(nn.Cell):
    """A 3x3 convolution without bias, batch norm and ReLU."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = SpatialConv(in_channels, channels, has_bias=False)
        self.bn = BatchNorm(channels)
        initialize(self.conv.weight, HeNormal(mode="fan_out", nonlinearity="relu"))

    def construct(self, x: Tensor) -> Tensor:
        return ops.relu(self.bn(self.conv(x)))


class Doubling(nn.Cell):
    """A map of twice the height and width, bilinear."""

    def construct(self, x: Tensor) -> Tensor:
        height, width = size_of(x)
        return resize_bilinear(x, (2 * height, 2 * width))


class ChannelDropout(nn.Cell):
    """Drops whole channels of a sample's map while training (arXiv 1411.4280).

    ``scale``, shape (N, C), holds 0 for the channels that are dropped and 1 / (1 - rate) for the
    others. A training step that must repeat exactly draws it outside the graph, as for
    :class:`DropPath`. Left out, the channels are drawn here.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.keep = 1.0 - rate

    def construct(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        channels = x.shape[3] if channels_last() else x.shape[1]
        if scale is None:
            if not self.training or self.keep == 1.0:
                return x
            scale = ops.floor(ops.rand(x.shape[0], channels) + self.keep) / self.keep
        shape = (-1, 1, 1, channels) if channels_last() else (-1, channels, 1, 1)
        return x * scale.astype(x.dtype).reshape(shape)


class SemanticFPNHead(nn.Cell):
    """The maps of an FPN, the finest first, to logits as large as that one.

    Level i has max(1, i) blocks of 3x3 convolution, batch norm and ReLU, and all but the first a
    bilinear doubling behind each block. All levels, brought to the first one's size, are summed.

    Args:
        in_channels: of each map.
        num_classes: of the logits.
        channels: of the levels.
        dropout: share of the channels of the sum that are dropped in training.
        levels: number of maps.
    """

    def __init__(
        self, in_channels: int, num_classes: int, channels: int, dropout: float, levels: int
    ) -> None:
        super().__init__()
        scale_heads = []
        for level in range(levels):
            cells: list[nn.Cell] = []
            for block in range(max(1, level)):
                cells.append(ConvNormReLU(channels if block else in_channels, channels))
                if level > 0:
                    cells.append(Doubling())
            scale_heads.append(nn.SequentialCell(cells))
        self.scale_heads = nn.CellList(scale_heads)
        self.dropout = ChannelDropout(dropout)
        self.conv_seg = PointwiseConv(channels, num_classes)
        initialize(self.conv_seg.weight, Normal(0.01))
        initialize(self.conv_seg.bias, Zero())

    def construct(self, maps: Sequence[Tensor], dropout: Tensor | None = None) -> Tensor:
        size = size_of(maps[0])
        levels = [head(x) for head, x in zip(self.scale_heads, maps)]
        total = levels[0]
        for x in levels[1:]:
            total = total + resize_bilinear(x, size)
        return self.conv_seg(self.dropout(total, dropout))


class SemanticFPN(OnBackbone):
    """Images (N, C, H, W) to logits of each place, (N, num_classes, (H + 1) // 4, (W + 1) // 4).

    Args:
        backbone: a network with ``features_only``; any PoolFormer or MetaFormer.
        num_classes: of the logits; 150 in ADE20K.
        neck_channels: of the maps that the neck gives.
        head_channels: of the levels in the head.
        dropout: share of the head's channels that are dropped in training.

    Raises:
        ValueError: the backbone is a classifier.
    """

    def __init__(
        self,
        backbone: StagedClassifier,
        *,
        num_classes: int = 150,
        neck_channels: int = 256,
        head_channels: int = 128,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(backbone, num_classes)
        self.palette: tuple[tuple[int, int, int], ...] = ()  # of the classes, red, green and blue
        self.reduce_zero_label: bool | None = None  # 0 in labels stands for no class, if known
        self.neck = FPN(self.widths, neck_channels)
        self.decode_head = SemanticFPNHead(
            neck_channels, num_classes, head_channels, dropout, len(self.widths)
        )

    def construct(self, images: Tensor, dropout: Tensor | None = None) -> Tensor:
        """Give the logits, at a quarter of the images' height and width.

        Args:
            images: (N, C, H, W), normalised.
            dropout: (N, head_channels), the scales of a training step, see
                :class:`ChannelDropout`; without it they are drawn here.
        """
        maps = self.neck(self.backbone.feature_maps(images))
        return to_channels_first(self.decode_head(maps, dropout))

    def synchronize_norms(self, world_size: int) -> None:
        """Let the head's batch norms take the statistics of all ranks' images in training."""
        for _, cell in self.decode_head.cells_and_names():
            if isinstance(cell, BatchNorm):
                cell.synchronize(world_size)

    def segment(self, images: Tensor, original_size: tuple[int, int] | None = None) -> Tensor:
        """Give the class of each place of images, int32 (N, height, width).

        Args:
            images: (N, C, H, W), normalised and at the size that the network is to see.
            original_size: height and width of the answer, None for those of ``images``.
        """
        size = (images.shape[2], images.shape[3])
        return label_map(self(images), size, original_size or size)


def label_map(
    logits: Tensor, input_size: tuple[int, int], original_size: tuple[int, int]
) -> Tensor:
    """Give the class of each place of images by their logits, int32 (N, height, width).

    The official test resizes twice, to the size that the network saw and from there to that of the
    image. One resize would tell another class for about one place in a hundred.

    Args:
        logits: (N, classes, h, w).
        input_size: height and width of what the network was given.
        original_size: height and width of the answer.
    """
    wide = resize_channels_first(logits.astype(ms.float32), input_size)
    return ops.Argmax(1)(resize_channels_first(wide, original_size))
