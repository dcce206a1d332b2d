"""What networks of dense prediction are trained to make small."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from ..parts.resizing import resize_channels_first

IGNORED = 255  # the label of places without a class, as MMSegmentation has it


class SegmentationLoss(nn.Cell):
    """Softmax cross entropy of logits that are first resized to the labels' size, in float32.

    Places with the label 255 count nothing and are still counted: the mean is over all places, as
    in MMSegmentation 0.19.
    """

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Give the loss, a scalar.

        Args:
            logits: (N, classes, h, w).
            labels: (N, H, W), integers.
        """
        _, height, width = labels.shape
        wide = resize_channels_first(logits.astype(ms.float32), (height, width))
        total = ops.cross_entropy(
            wide, labels.astype(ms.int32), ignore_index=IGNORED, reduction="sum"
        )
        return total / labels.size
