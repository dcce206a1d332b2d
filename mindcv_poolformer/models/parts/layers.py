"""The parts of a PoolFormer: block, MLP, patch embedding, drop path.

Feature maps lie as the device likes them, (N, C, H, W) or (N, H, W, C): see ``layout.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from .activations import GELU
from .convolutions import PointwiseConv, StridedConv
from .layout import per_channel
from .mixers import Pooling
from .norms import GroupNorm


class ConvMlp(nn.Cell):
    """Two 1x1 convolutions with an exact (erf) GELU between them."""

    def __init__(self, channels: int, hidden_channels: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.fc1 = PointwiseConv(channels, hidden_channels)
        self.act = GELU()
        self.fc2 = PointwiseConv(hidden_channels, channels)
        self.drop = nn.Dropout(p=drop_rate)

    def construct(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class PatchEmbed(nn.Cell):
    """A strided convolution that shortens the token grid: the stem and the three downsamples."""

    def __init__(
        self, in_channels: int, channels: int, patch_size: int, stride: int, padding: int
    ) -> None:
        super().__init__()
        self.proj = StridedConv(in_channels, channels, patch_size, stride, padding)

    def construct(self, x: Tensor) -> Tensor:
        return self.proj(x)


class DropPath(nn.Cell):
    """Stochastic depth: drops a residual branch per sample while training (arXiv 1603.09382).

    ``scale``, shape (N,), holds 0 for the samples whose branch is dropped and 1 / (1 - rate) for
    the others. A training step that must repeat exactly draws it outside the graph, since several
    random operators in one graph do not repeat. Left out, the branch is drawn here.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.keep = 1.0 - rate

    def construct(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        if scale is None:
            if not self.training or self.keep == 1.0:
                return x
            scale = ops.floor(ops.rand(x.shape[0]) + self.keep) / self.keep
        return x * scale.astype(x.dtype).reshape(-1, 1, 1, 1)


class PoolFormerBlock(nn.Cell):
    """A MetaFormer block with pooling as its token mixer (paper, figure 2 and algorithm 1).

    The paper's hybrids put another mixer or norm in the same place. ``drop_path``, shape (2, N),
    scales the two residual branches of each sample; see :class:`DropPath`.
    """

    def __init__(
        self,
        channels: int,
        drop_rate: float,
        drop_path_rate: float,
        layer_scale_init: float,
        mixer: Callable[[], nn.Cell] = Pooling,
        norm: type[nn.Cell] = GroupNorm,
    ) -> None:
        super().__init__()
        self.norm1 = norm(channels)
        self.token_mixer = mixer()
        self.norm2 = norm(channels)
        self.mlp = ConvMlp(channels, 4 * channels, drop_rate)
        self.drop_path = DropPath(drop_path_rate)
        scale = np.full(channels, layer_scale_init, np.float32)
        self.layer_scale_1 = Parameter(Tensor(scale))
        self.layer_scale_2 = Parameter(Tensor(scale))

    def construct(self, x: Tensor, drop_path: Tensor | None = None) -> Tensor:
        first, second = (None, None) if drop_path is None else (drop_path[0], drop_path[1])
        mixed = self.token_mixer(self.norm1(x))
        x = x + self.drop_path(_scaled(mixed, self.layer_scale_1), first)
        mixed = self.mlp(self.norm2(x))
        return x + self.drop_path(_scaled(mixed, self.layer_scale_2), second)


def _scaled(x: Tensor, scale: Parameter) -> Tensor:
    """Multiply each channel of a map, in the map's type: a product of float32 is twice the work."""
    return per_channel(scale).astype(x.dtype) * x
