"""What networks of dense prediction are trained to make small."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from ..parts.resizing import resize_channels_first


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Give the sigmoid cross entropy of each logit with its target from 0 to 1, in float32."""
    wide = logits.astype(ms.float32)
    spread = ops.relu(wide) + ops.log(1.0 + ops.exp(-ops.abs(wide)))
    return spread - wide * targets.astype(ms.float32)


def focal_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Give the focal loss (Lin et al., arXiv 1708.02002, equation 5) of each place, in float32.

    With alpha 0.25 and gamma 2, summed over the classes, of which each has its own sigmoid.

    Args:
        logits: (..., C).
        labels: (...), the number of the class, or one that is no class for background.

    Returns:
        (...).
    """
    alpha, wide = 0.25, logits.astype(ms.float32)
    classes = ops.arange(wide.shape[-1]).astype(ms.int32)
    targets = (labels.astype(ms.int32).expand_dims(-1) == classes).astype(ms.float32)
    p = ops.sigmoid(wide)
    wrong = p * (1.0 - targets) + (1.0 - p) * targets
    share = alpha * targets + (1.0 - alpha) * (1.0 - targets)
    return (share * wrong * wrong * binary_cross_entropy(wide, targets)).sum(-1)


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
