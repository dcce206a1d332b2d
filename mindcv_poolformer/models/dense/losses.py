"""What networks of dense prediction are trained to make small."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from ..parts.resizing import resize_channels_first


class SegmentationLoss(nn.Cell):
    """Softmax cross entropy of logits that are first resized to the labels' size, in float32.

    Places without a class add nothing and are still counted: the mean is over all places, as in
    MMSegmentation 0.19.

    Args:
        ignore_index: the label of places without a class, 255 in MMSegmentation.
    """

    def __init__(self, ignore_index: int) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Give the loss, a scalar.

        Args:
            logits: (N, classes, h, w).
            labels: (N, H, W), integers.
        """
        _, height, width = labels.shape
        wide = resize_channels_first(logits.astype(ms.float32), (height, width))
        total = ops.cross_entropy(
            wide, labels.astype(ms.int32), ignore_index=self.ignore_index, reduction="sum"
        )
        return total / labels.size
