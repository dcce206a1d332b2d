"""3x3 convolution, batch norm and resizing against NumPy in float64."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindcv_poolformer.models.parts.batch_norm import BatchNorm
from mindcv_poolformer.models.parts.convolutions import SpatialConv
from mindcv_poolformer.models.parts.layout import from_channels_first, to_channels_first
from mindcv_poolformer.models.parts.resizing import resize_bilinear, resize_nearest


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


class ChannelsFirst(nn.Cell):
    """A Cell, or a function of a map, called on maps (N, C, H, W)."""

    def __init__(self, inner) -> None:
        super().__init__(auto_prefix=False)
        self.inner = inner

    def construct(self, x: Tensor) -> Tensor:
        return to_channels_first(self.inner(from_channels_first(x)))


def gradients(cell: nn.Cell, x: np.ndarray, dout: np.ndarray) -> list[np.ndarray]:
    """The gradients of <cell(x), dout>: of x, and then of the cell's parameters."""
    outside = ChannelsFirst(cell)

    def product(x: Tensor, dout: Tensor) -> Tensor:
        return (outside(x) * dout).sum()

    weights = list(cell.trainable_params())
    of_x, of_weights = ms.grad(product, grad_position=0, weights=weights)(Tensor(x), Tensor(dout))
    return [gradient.asnumpy() for gradient in (of_x, *of_weights)]


@pytest.mark.layout
@pytest.mark.parametrize("has_bias", [True, False])
def test_3x3_convolution_and_its_gradients(has_bias: bool, both_modes: str) -> None:
    n, inputs, outputs, height, width = 2, 3, 5, 4, 7
    cell = SpatialConv(inputs, outputs, has_bias)
    weight, bias = draw(outputs, inputs, 3, 3), draw(outputs, seed=1) * has_bias
    cell.weight.set_data(Tensor(weight))
    if has_bias:
        cell.bias.set_data(Tensor(bias))
    x, dout = draw(n, inputs, height, width, seed=2), draw(n, outputs, height, width, seed=3)
    bordered = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    y = np.broadcast_to(bias[:, None, None], dout.shape).astype(np.float64)
    of_weight, of_bordered = np.zeros(weight.shape), np.zeros(bordered.shape)
    for i in range(3):
        for j in range(3):
            seen = bordered[:, :, i : i + height, j : j + width]
            y = y + np.einsum("oc,nchw->nohw", weight[:, :, i, j], seen)
            of_weight[:, :, i, j] = np.einsum("nohw,nchw->oc", dout, seen)
            of_bordered[:, :, i : i + height, j : j + width] += np.einsum(
                "oc,nohw->nchw", weight[:, :, i, j], dout
            )
    np.testing.assert_allclose(ChannelsFirst(cell)(Tensor(x)).asnumpy(), y, atol=1e-5)
    found = gradients(cell, x, dout)
    np.testing.assert_allclose(found[0], of_bordered[:, :, 1:-1, 1:-1], atol=1e-5)
    np.testing.assert_allclose(found[1], of_weight, atol=1e-5)
    if has_bias:
        np.testing.assert_allclose(found[2], dout.sum((0, 2, 3)), atol=1e-5)


def test_3x3_convolution_of_float16(pynative_mode: None) -> None:
    cell = SpatialConv(3, 5, has_bias=False)
    x = draw(1, 3, 6, 6)
    exact = ChannelsFirst(cell)(Tensor(x)).asnumpy()
    half = ChannelsFirst(cell)(Tensor(x.astype(np.float16))).asnumpy()
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, exact, atol=1e-2)


@pytest.mark.layout
def test_batch_norm_and_its_gradients(both_modes: str) -> None:
    channels = 3
    cell = BatchNorm(channels)
    gamma, beta = draw(channels, seed=1), draw(channels, seed=2)
    cell.gamma.set_data(Tensor(gamma))
    cell.beta.set_data(Tensor(beta))
    x, dout = draw(2, channels, 4, 5) + 30, draw(2, channels, 4, 5, seed=3)
    wide, axes, count = x.astype(np.float64), (0, 2, 3), 40
    mean, variance = wide.mean(axes, keepdims=True), wide.var(axes, keepdims=True)
    rstd = 1 / np.sqrt(variance + 1e-5)
    normed = (wide - mean) * rstd
    scaled = dout * gamma[:, None, None]
    of_x = rstd * (
        scaled
        - scaled.mean(axes, keepdims=True)
        - normed * (scaled * normed).mean(axes, keepdims=True)
    )
    found = gradients(cell.set_train(), x, dout)
    np.testing.assert_allclose(found[0], of_x, atol=2e-5)
    np.testing.assert_allclose(found[1], (dout * normed).sum(axes), atol=2e-4)
    np.testing.assert_allclose(found[2], dout.sum(axes), atol=1e-5)
    running = 0.1 * mean.ravel(), 0.9 + 0.1 * variance.ravel() * count / (count - 1)
    np.testing.assert_allclose(cell.moving_mean.asnumpy(), running[0], rtol=1e-5)
    np.testing.assert_allclose(cell.moving_variance.asnumpy(), running[1], rtol=1e-5)
    if both_modes == "pynative":
        y = ChannelsFirst(cell.set_train(False))(Tensor(x)).asnumpy()
        centred = wide - running[0][:, None, None]
        expected = centred / np.sqrt(running[1] + 1e-5)[:, None, None] * gamma[:, None, None]
        np.testing.assert_allclose(y, expected + beta[:, None, None], rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(cell.moving_mean.asnumpy(), running[0], rtol=1e-5)


@pytest.mark.layout
@pytest.mark.parametrize(("old", "new"), [((4, 5), (7, 10)), ((3, 7), (5, 13)), ((5, 3), (5, 3))])
def test_resizing_is_pytorchs(
    old: tuple[int, int], new: tuple[int, int], pynative_mode: None
) -> None:
    x = draw(2, 3, *old)
    rows, columns = (np.arange(n) * o // n for o, n in zip(old, new))
    nearest = ChannelsFirst(lambda x: resize_nearest(x, new))(Tensor(x)).asnumpy()
    np.testing.assert_array_equal(nearest, x[:, :, rows][:, :, :, columns])
    high, wide = (weights(o, n) for o, n in zip(old, new))
    bilinear = ChannelsFirst(lambda x: resize_bilinear(x, new))(Tensor(x)).asnumpy()
    np.testing.assert_allclose(bilinear, high @ x @ wide.T, atol=1e-5)


def weights(old: int, new: int) -> np.ndarray:
    """How much of each old place is in each new one, (new, old): bilinear, half-pixel centres."""
    centre = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    return np.maximum(1 - abs(centre[:, None] - np.arange(old)), 0)


@pytest.mark.layout
@pytest.mark.parametrize("channels", [4, 64])
def test_float16_keeps_its_places(channels: int) -> None:
    """MindSpore 2.10's fused transposition of float16 does not, for most numbers of channels."""
    x = draw(2, channels, 8, 16).astype(np.float16)
    found = ChannelsFirst(Enlarge())(Tensor(x)).asnumpy()
    np.testing.assert_array_equal(found, 2 * x.repeat(2, 2).repeat(2, 3))


class Enlarge(nn.Cell):
    def construct(self, x: Tensor) -> Tensor:
        return resize_nearest(x + x, (16, 32))
