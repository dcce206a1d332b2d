"""A network of two layers, where the training step is the subject and not what it trains."""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from official import load_official_weights

from mindcv_poolformer.data.mix import smoothed_targets


class ToyNetwork(nn.Cell):
    """Images (N, 3, 4, 4) to logits (N, 5): a PoolFormer's step takes fifty times as long."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Dense(48, 8)
        self.layer_scale = Parameter(Tensor(np.ones(8, np.float32)), "layer_scale")
        self.head = nn.Dense(8, 5)
        load_official_weights(self)

    def layer_of(self, name: str) -> int:
        return int(name.startswith("head."))

    def construct(self, images: Tensor, drop_path: Tensor | None = None) -> Tensor:
        hidden = ops.tanh(self.stem(images.reshape(images.shape[0], 48)))
        return self.head(hidden * self.layer_scale)


def toy_batch(seed: int, size: int = 4) -> tuple[Tensor, Tensor]:
    """Images and soft targets for it."""
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((size, 3, 4, 4)).astype(np.float32)
    return Tensor(images), Tensor(smoothed_targets(rng.integers(5, size=size), 5, 0.1))
