"""The label map in NumPy against PyTorch's resizes and those on the device."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mindcv_poolformer.export import label_map as module
from mindcv_poolformer.export.label_map import label_map
from mindcv_poolformer.models import dense

torch = pytest.importorskip("torch", reason="needs the extra parity")


def by_torch(logits: np.ndarray, seen: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """The two resizes in float64: (classes, height, width)."""
    x = torch.from_numpy(logits.astype(np.float64))[None]
    for target in (seen, size):
        x = torch.nn.functional.interpolate(x, target, mode="bilinear", align_corners=False)
    return x[0].numpy()


@pytest.mark.parametrize(
    ("grid", "seen", "size"),
    [
        ((8, 12), (32, 48), (75, 50)),
        ((17, 25), (70, 101), (70, 101)),
        ((16, 16), (64, 64), (1, 700)),
        ((16, 16), (64, 64), (20, 9)),
        ((1, 3), (4, 12), (33, 33)),
    ],
)
@pytest.mark.parametrize("block", [1 << 23, 1 << 9])
def test_the_classes_are_pytorchs(
    grid: tuple[int, int],
    seen: tuple[int, int],
    size: tuple[int, int],
    block: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", block)
    logits = np.random.default_rng(0).standard_normal((7, *grid)).astype(np.float32)
    expected = by_torch(logits, seen, size)
    first, second = np.sort(expected, axis=0)[[-1, -2]]
    sure = first - second > 1e-5
    assert sure.mean() > 0.99 and len(np.unique(expected.argmax(0))) > 1
    found = label_map(logits, seen, size)
    assert found.dtype == np.int32 and found.shape == size
    np.testing.assert_array_equal(found[sure], expected.argmax(0)[sure])
    ms.set_context(mode=ms.PYNATIVE_MODE)
    on_device = dense.label_map(Tensor(logits[None]), seen, size).asnumpy()[0]
    np.testing.assert_array_equal(found[sure], on_device[sure])


def test_one_resize_would_tell_other_classes() -> None:
    logits = np.random.default_rng(0).standard_normal((7, 16, 16)).astype(np.float32)
    twice, once = (label_map(logits, seen, (71, 83)) for seen in ((64, 64), (71, 83)))
    assert 0.002 < (twice != once).mean() < 0.05
