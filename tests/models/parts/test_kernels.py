"""The kernels against NumPy in float64; maps are (N, H, W, C), as they lie on the CPU."""

from __future__ import annotations

import math
from collections.abc import Callable

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn

from mindcv_poolformer.models.parts.activations import GELU
from mindcv_poolformer.models.parts.convolutions import PointwiseConv, StridedConv, as_product
from mindcv_poolformer.models.parts.norms import GroupNorm, standardize
from mindcv_poolformer.models.parts.pooling import AveragePool

SIDES = [(1, 1), (1, 7), (2, 3), (3, 2), (7, 7), (32, 33), (33, 32), (56, 56)]
CONVS = [  # kernel size, stride, padding, then the image's height and width
    (7, 4, 2, 3, 5),
    (7, 4, 2, 7, 12),
    (7, 4, 2, 35, 33),
    (3, 2, 1, 1, 1),
    (3, 2, 1, 2, 7),
    (3, 2, 1, 15, 14),
    (4, 2, 0, 5, 9),  # the last row and column lie in no patch
]


# Of each way through the kernels one goes into a graph, too.
GRAPH = pytest.mark.long


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def gradients(cell: nn.Cell, x: np.ndarray, dout: np.ndarray) -> list[np.ndarray]:
    """The gradients of <cell(x), dout>: of x, and then of the cell's parameters."""
    weights = list(cell.trainable_params())

    def product(x: Tensor, dout: Tensor) -> Tensor:
        return (cell(x) * dout).sum()

    if not weights:
        return [ms.grad(product)(Tensor(x), Tensor(dout)).asnumpy()]
    of_x, of_weights = ms.grad(product, grad_position=0, weights=weights)(Tensor(x), Tensor(dout))
    return [gradient.asnumpy() for gradient in (of_x, *of_weights)]


def normal_cdf(x: np.ndarray) -> np.ndarray:
    return np.array([0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x])


def test_gelu_and_its_gradient(both_modes: str) -> None:
    x = np.linspace(-10, 10, 20001).astype(np.float32)
    wide = x.astype(np.float64)
    cdf = normal_cdf(wide)
    np.testing.assert_allclose(GELU()(Tensor(x)).asnumpy(), wide * cdf, rtol=0, atol=2e-6)
    slope = cdf + wide * np.exp(-(wide**2) / 2) / math.sqrt(2 * math.pi)
    (found,) = gradients(GELU(), x, np.ones_like(x))
    np.testing.assert_allclose(found, slope, rtol=0, atol=2e-6)


def test_gelu_of_float16_is_rounded_once(both_modes: str) -> None:
    x = np.linspace(-10, 10, 4001).astype(np.float16)
    wide = x.astype(np.float64)
    found = GELU()(Tensor(x)).asnumpy()
    assert found.dtype == np.float16
    exact = wide * normal_cdf(wide)
    np.testing.assert_allclose(found.astype(np.float64), exact, rtol=2**-11, atol=2e-6)


@pytest.mark.parametrize(
    ("height", "width", "both_modes"),
    [
        *((height, width, "pynative") for height, width in SIDES),
        *(pytest.param(*sides, "graph", marks=GRAPH) for sides in ((32, 33), (33, 32))),
    ],
    indirect=["both_modes"],
)
def test_pooling_and_its_gradient(height: int, width: int, both_modes: str) -> None:
    x, dout = draw(2, height, width, 5), draw(2, height, width, 5, seed=1)
    expected, transposed = np.empty(x.shape), np.zeros(x.shape)
    for i in range(height):
        for j in range(width):
            window = (slice(None), slice(max(i - 1, 0), i + 2), slice(max(j - 1, 0), j + 2))
            values = x[window].astype(np.float64)
            expected[:, i, j] = values.mean(axis=(1, 2))
            share = dout[:, i, j] / (values.shape[1] * values.shape[2])
            transposed[window] += share[:, None, None]
    np.testing.assert_allclose(AveragePool()(Tensor(x)).asnumpy(), expected, atol=1e-6)
    (found,) = gradients(AveragePool(), x, dout)
    np.testing.assert_allclose(found, transposed, atol=1e-6)


@pytest.mark.parametrize("side", [7, 40])
def test_pooling_keeps_float16(side: int, both_modes: str) -> None:
    x = np.full((1, side, side, 2), 30000, np.float16)  # nine of them are beyond float16
    found = AveragePool()(Tensor(x)).asnumpy()
    assert found.dtype == np.float16
    np.testing.assert_allclose(found.astype(np.float64), 30000, rtol=2**-10)


def patches(x: np.ndarray, size: int, stride: int, padding: int) -> np.ndarray:
    """The patches of a map (N, H, W, C): (N, rows, columns, C, size, size)."""
    border = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    views = np.lib.stride_tricks.sliding_window_view(np.pad(x, border), (size, size), axis=(1, 2))
    return views[:, ::stride, ::stride].astype(np.float64)


def gradient_of_input(
    dout: np.ndarray, weight: np.ndarray, stride: int, padding: int, height: int, width: int
) -> np.ndarray:
    """Send each output's gradient back to the pixels of its patch."""
    n, rows, columns, _ = dout.shape
    size = weight.shape[2]
    padded = np.zeros((n, height + 2 * padding, width + 2 * padding, weight.shape[1]))
    for i in range(rows):
        for j in range(columns):
            part = np.einsum("no,ocij->nijc", dout[:, i, j], weight.astype(np.float64))
            top, left = i * stride, j * stride
            padded[:, top : top + size, left : left + size] += part
    return padded[:, padding : padding + height, padding : padding + width]


def check_conv(conv: nn.Conv2d, x: np.ndarray, size: int, stride: int, padding: int) -> None:
    """Compare a convolution, and the gradients of input, weight and bias, with the formula."""
    conv.bias.set_data(Tensor(draw(conv.out_channels, seed=2)))
    weight, bias = conv.weight.asnumpy(), conv.bias.asnumpy()
    views = patches(x, size, stride, padding)
    expected = np.einsum("nhwcij,ocij->nhwo", views, weight) + bias
    np.testing.assert_allclose(conv(Tensor(x)).asnumpy(), expected, atol=1e-5)
    dout = draw(*expected.shape, seed=3)
    of_x, of_weight, of_bias = gradients(conv, x, dout)
    height, width = x.shape[1:3]
    back = gradient_of_input(dout, weight, stride, padding, height, width)
    np.testing.assert_allclose(of_x, back, atol=1e-5)
    truth = np.einsum("nhwcij,nhwo->ocij", views, dout)
    np.testing.assert_allclose(of_weight, truth, atol=1e-4)
    np.testing.assert_allclose(of_bias, dout.astype(np.float64).sum((0, 1, 2)), atol=1e-4)


@pytest.mark.parametrize(
    ("size", "stride", "padding", "height", "width", "both_modes"),
    [
        *((*conv, "pynative") for conv in CONVS),
        *(pytest.param(*conv, "graph", marks=GRAPH) for conv in (CONVS[2], CONVS[5], CONVS[6])),
    ],
    indirect=["both_modes"],
)
def test_strided_conv(
    size: int, stride: int, padding: int, height: int, width: int, both_modes: str
) -> None:
    conv = StridedConv(3, 6, size, stride, padding)
    check_conv(conv, draw(2, height, width, 3), size, stride, padding)


def test_float16_of_four_channels_stays_in_place() -> None:
    """MindSpore 2.10's fused transposition of float16, here of the weight, mixes it up."""
    conv, x = StridedConv(4, 64, 7, 4, 2), draw(2, 16, 20, 4)
    expected = conv(Tensor(x)).asnumpy()
    found = conv(Tensor(x.astype(np.float16))).asnumpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.01 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("height", "width", "both_modes"),
    [(1, 1, "pynative"), (5, 8, "pynative"), pytest.param(5, 8, "graph", marks=GRAPH)],
    indirect=["both_modes"],
)
def test_pointwise_conv(height: int, width: int, both_modes: str) -> None:
    check_conv(PointwiseConv(7, 4), draw(2, height, width, 7), 1, 1, 0)


@pytest.mark.parametrize(
    "create", [lambda: StridedConv(3, 6, 7, 4, 2), lambda: PointwiseConv(3, 6)]
)
def test_a_weight_laid_out_as_the_product_says_the_same(create: Callable[[], nn.Conv2d]) -> None:
    conv, x = create(), Tensor(draw(2, 9, 11, 3))
    before = conv(x).asnumpy()
    conv.compile_cache.clear()
    conv.weight = Parameter(Tensor(as_product(conv.weight.asnumpy())), name="weight")
    assert conv.weight.ndim == 2
    np.testing.assert_allclose(conv(x).asnumpy(), before, atol=1e-6)


def test_standardize_with_a_mean_far_from_zero(both_modes: str) -> None:
    x = draw(2, 56, 56, 64) + np.float32(1000)
    axes = {"axis": (1, 2, 3), "keepdims": True}
    wide = x.astype(np.float64)
    expected = (wide - wide.mean(**axes)) / np.sqrt(wide.var(**axes) + 1e-5)

    def run(x: Tensor) -> Tensor:
        return standardize(x, 1e-5)

    compiled = ms.jit(run) if both_modes == "graph" else run
    np.testing.assert_allclose(compiled(Tensor(x)).asnumpy(), expected, rtol=0, atol=5e-3)

    mean = x.mean(**axes)  # and the shorter formula, all float32, cancels
    short = (x - mean) / np.sqrt((x * x).mean(**axes) - mean * mean + np.float32(1e-5))
    assert short.dtype == np.float32
    assert np.abs(short - expected).max() > 5e-3


def test_group_norm_of_float16_is_computed_in_float32(both_modes: str) -> None:
    x = (draw(2, 7, 5, 16) * 3000).astype(np.float16)  # squares are beyond float16
    norm = GroupNorm(16)
    norm.gamma.set_data(Tensor(draw(16, seed=4)))
    norm.beta.set_data(Tensor(draw(16, seed=5)))
    wide = x.astype(np.float64)
    mean, variance = wide.mean((1, 2, 3), keepdims=True), wide.var((1, 2, 3), keepdims=True)
    expected = (wide - mean) / np.sqrt(variance + 1e-5)
    expected = expected * norm.gamma.asnumpy() + norm.beta.asnumpy()
    found = norm(Tensor(x)).asnumpy()
    assert found.dtype == np.float16
    np.testing.assert_allclose(found.astype(np.float64), expected, rtol=2**-11, atol=1e-5)
