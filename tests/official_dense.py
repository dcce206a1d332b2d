"""What the tests of dense prediction compare with the official numbers; see ``official.py``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor
from official import FIXTURES, official_name

from mindcv_poolformer.models.parts.layout import to_channels_first

DENSE = FIXTURES / "dense"
DETECTOR_SHAPES: dict[str, dict[str, list[int]]] = json.loads(
    (DENSE / "official_detector_shapes.json").read_text()
)


def official_images(seed: int, *shape: int) -> Tensor:
    return Tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def wave_sum(x: np.ndarray) -> float:
    """A sum that sees a transposition."""
    return float((x.ravel().astype(np.float64) * np.cos(np.arange(x.size) % 997)).sum())


def check_map(official: Any, name: str, step: int, found: Tensor) -> None:
    """As :func:`check_channels`, of a map as the device likes it."""
    check_channels(official, name, step, to_channels_first(found).asnumpy())


def check_channels(official: Any, name: str, step: int, found: np.ndarray) -> None:
    """Compare every step-th channel, and figures of the whole, within 1e-4 of the largest."""
    x = found.astype(np.float64)
    mean, deviation, size, low, high, wave = official[f"{name}.stats"]
    part = official[f"{name}[:, ::{step}]" if step > 1 else name]
    np.testing.assert_allclose(x[:, ::step], part, rtol=0, atol=1e-4 * max(high, -low))
    stats = (x.mean(), x.std(), abs(x).mean(), x.min(), x.max())
    np.testing.assert_allclose(
        stats, (mean, deviation, size, low, high), rtol=1e-4, atol=1e-5 * size
    )
    assert wave_sum(x) == pytest.approx(wave, abs=1e-5 * size * x.size)


def check_gradients(
    official: Any,
    forward: Callable[..., Any],
    weights: Sequence[Parameter],
    inputs: Sequence[Tensor],
    without: str = "nothing",
) -> Any:
    """Compare the gradient of each parameter; give what ``forward`` gives.

    ``without`` begins the names of the official parameters that these networks lack.
    """
    value, gradients = ms.value_and_grad(forward, None, weights, has_aux=True)(*inputs)
    names = [official_name(weight.name) for weight in weights]
    assert {*names} == {n for n in official["grad_names"] if not n.startswith(without)}
    norms = dict(zip(official["grad_names"], official["grad_norms"]))
    dots = dict(zip(official["grad_names"], official["grad_dots"]))
    for name, gradient in zip(names, gradients):
        found, norm = gradient.asnumpy().astype(np.float64), norms[name]
        assert np.linalg.norm(found) == pytest.approx(norm, rel=5e-4, abs=1e-5), name
        assert wave_sum(found) == pytest.approx(dots[name], abs=2e-3 * norm + 1e-5), name
    return value


def padded(official: Any, images: int, length: int) -> tuple[Tensor, Tensor]:
    """The true boxes (N, G, 4) and labels (N, G) of a training fixture, filled up."""
    boxes = np.zeros((images, length, 4), np.float32)
    labels = np.full((images, length), -1, np.int32)
    for i in range(images):
        count = len(official[f"gt_labels{i}"])
        boxes[i, :count], labels[i, :count] = official[f"gt_boxes{i}"], official[f"gt_labels{i}"]
    return Tensor(boxes), Tensor(labels)
