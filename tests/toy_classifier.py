"""A classifier of one layer, where the bundle is the subject and not its graph.

A Cell cannot be compiled from a conftest.py: MindSpore looks its globals up by the module's name,
which another conftest.py may have taken.
"""

from __future__ import annotations

from mindspore import Tensor, nn, ops


class ToyClassifier(nn.Cell):
    """Images (N, 3, H, W) of any size to 10 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Dense(6, 10)

    def construct(self, images: Tensor) -> Tensor:
        features = ops.concat((images.mean((2, 3)), (images * images).mean((2, 3))), 1)
        return self.head(features)
