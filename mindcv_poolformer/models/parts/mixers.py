"""Token mixers: how the places of a map tell each other something (arXiv 2210.13452, section 3).

:class:`Pooling` takes and gives maps as the device likes them, the others (N, H, W, C).
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from .activations import StarReLU
from .ascend import has_flash_attention
from .convolutions import DepthwiseConv
from .layout import on_channels_last
from .pooling import AveragePool

HEAD_CHANNELS = 32  # of each attention head
GRIDS = {2: 14, 3: 7}  # edge of the maps of random mixing at 224 px, by stage


class Pooling(nn.Cell):
    """PoolFormer's token mixer: 3x3 average pooling minus identity (paper, section 3.2).

    The padding does not count in the mean. The subtraction undoes the block's own residual
    connection.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pool = AveragePool()

    def construct(self, x: Tensor) -> Tensor:
        return self.pool(x) - x


class ChannelsLastPooling(nn.Cell):
    """3x3 average pooling minus identity, as PoolFormer's."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = AveragePool()

    def construct(self, x: Tensor) -> Tensor:
        return on_channels_last(self.pool, x) - x


class RandomMixing(nn.Cell):
    """Each place gets a weighted mean of all places; the weights are drawn once and never trained.

    Args:
        grid: edge of the maps, whose places the weights are for.

    Raises:
        ValueError: in a call, the map is of another size.
    """

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.grid = grid
        drawn = np.exp(np.random.default_rng(grid).random((grid**2, grid**2)))
        weights = (drawn / drawn.sum(1, keepdims=True)).astype(np.float32)
        self.random_matrix = Parameter(Tensor(weights), requires_grad=False)

    def construct(self, x: Tensor) -> Tensor:
        n, height, width, channels = x.shape
        if (height, width) != (self.grid, self.grid):
            raise ValueError("random mixing: found a map of another size than its weights are for")
        weights = self.random_matrix.astype(x.dtype)
        mixed = ops.matmul(weights, x.reshape(n, height * width, channels))
        return mixed.reshape(n, height, width, channels)


class SepConv(nn.Cell):
    """Twice as many channels, StarReLU, a 7x7 convolution of each channel alone, and back.

    The inverted separable convolution of MobileNetV2 (arXiv 1801.04381).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pwconv1 = nn.Dense(channels, 2 * channels, has_bias=False)
        self.act1 = StarReLU()
        self.dwconv = DepthwiseConv(2 * channels, 7)
        self.pwconv2 = nn.Dense(2 * channels, channels, has_bias=False)

    def construct(self, x: Tensor) -> Tensor:
        return self.pwconv2(self.dwconv(self.act1(self.pwconv1(x))))


class Attention(nn.Cell):
    """Self-attention with heads of 32 channels (arXiv 1706.03762), without biases."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // HEAD_CHANNELS * HEAD_CHANNELS
        self.qkv = nn.Dense(channels, 3 * inner, has_bias=False)
        self.attend = Attend(HEAD_CHANNELS**-0.5)
        self.proj = nn.Dense(inner, channels, has_bias=False)

    def construct(self, x: Tensor) -> Tensor:
        return self.proj(self.attend(self.qkv(x)))


class Attend(nn.Cell):
    """Softmax(scale q k^T) v for maps of q, k and v (N, H, W, 3 C) to maps (N, H, W, C).

    Ascend's training cards have it as one operator, in float16, which takes the maps as they are.
    Elsewhere one transposition brings the heads before the places, and one brings them back.

    Args:
        scale: of the products of queries and keys.
        flash: take that operator or not, None where the device has it. Graphs that other devices
            load are better without; see :func:`choose_attention`.
    """

    def __init__(self, scale: float, flash: bool | None = None) -> None:
        super().__init__()
        self.scale = scale
        self.flash = flash
        self.scores = ops.BatchMatMul(transpose_b=True)
        self.gather = ops.BatchMatMul()

    def construct(self, x: Tensor) -> Tensor:
        n, height, width, channels = x.shape
        heads = channels // (3 * HEAD_CHANNELS)
        if height * width == 1:
            # A place alone attends to itself. Computed, the gradients of later calls come out
            # wrong in PyNative mode of MindSpore 2.10.
            return x[:, :, :, 2 * heads * HEAD_CHANNELS :]
        x = x.reshape(n, height * width, 3, heads, HEAD_CHANNELS)
        flash = has_flash_attention() if self.flash is None else self.flash
        if x.dtype == ms.float16 and flash:
            y = ops.flash_attention_score(
                x[:, :, 0],
                x[:, :, 1],
                x[:, :, 2],
                heads,
                scalar_value=self.scale,
                input_layout="BSND",
            )
        else:
            x = x.transpose(2, 0, 3, 1, 4)
            scores = self.scores(x[0] * self.scale, x[1])
            weights = ops.softmax(scores.astype(ms.float32), -1).astype(x.dtype)
            y = self.gather(weights, x[2]).transpose(0, 2, 1, 3)
        return y.reshape(n, height, width, heads * HEAD_CHANNELS)


def choose_attention(network: nn.Cell, flash: bool | None) -> None:
    """Have every attention of a network take one operator or not, None where the device has it."""
    for _, cell in network.cells_and_names():
        if isinstance(cell, Attend):
            cell.flash = flash
