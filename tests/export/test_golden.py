"""The golden pair, by NumPy alone, and the self test that compares a bundle with it."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bundles import redescribe, sign
from checkpoints import TRANSFORM, logits_of, make_network
from mindspore import Tensor, nn
from PIL import Image

from mindcv_poolformer.data.preprocess import EvalTransform
from mindcv_poolformer.export.bundle import Bundle, load_bundle
from mindcv_poolformer.export.golden import Golden, compare, self_test
from mindcv_poolformer.models.deploy import to_deploy
from mindcv_poolformer.runtime.errors import UserError


def rewrite(folder: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    """Change the golden pair of a bundle, and its checksum with it."""
    path = folder / "golden.npz"
    entries = dict(np.load(path))
    change(entries)
    np.savez(path, **entries)
    sign(folder, "golden.npz")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A bundle to damage."""
    target = tmp_path / "bundle"
    shutil.copytree(folder, target)
    return target


def test_the_pair_is_the_checkpoints(
    folder: Path, pictures: list[Path], inputs: np.ndarray, expected: np.ndarray
) -> None:
    golden = np.load(folder / "golden.npz")
    crops = [np.asarray(Image.open(path))[4:36, 9:41] for path in pictures[:4]]
    np.testing.assert_array_equal(golden["pixels"], np.stack(crops))
    np.testing.assert_array_equal(golden["images"], inputs[:4])
    np.testing.assert_allclose(golden["logits"], expected[:4], atol=1e-4)
    softmax = np.exp(expected[:4]) / np.exp(expected[:4]).sum(1, keepdims=True)
    np.testing.assert_allclose(golden["probabilities"], softmax, atol=1e-5)


def test_self_test_says_what_it_compared(bundle: Bundle) -> None:
    line = self_test(bundle)
    assert line.startswith("self test at 32 px: logits of 4 images, batch size 4, in MindSpore 2.")
    assert line.endswith(" of the checkpoint's (allowed 0.0001), top-1 equal on 100%")


def test_a_wrong_answer_fails(bundle: Bundle) -> None:
    wrong = dataclasses.replace(bundle, network=lambda images: bundle.network(images) + 0.01)
    with pytest.raises(UserError, match=r"found logits up to 0.01 off .* on 4 images, expected at"):
        self_test(wrong)
    nan = dataclasses.replace(bundle, network=lambda images: bundle.network(images) * np.nan)
    with pytest.raises(UserError, match="found logits up to nan off"):
        self_test(nan)


def test_another_preprocessing_fails(bundle: Bundle) -> None:
    transform = dataclasses.replace(bundle.transform, mean=(120.0, 115.0, 101.0))
    with pytest.raises(UserError, match=r"normalised images up to 0.018.*preprocessing is another"):
        self_test(dataclasses.replace(bundle, transform=transform))


def test_a_damaged_pair(copy: Path) -> None:
    content = bytearray((copy / "golden.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "golden.npz").write_bytes(content)
    with pytest.raises(UserError, match="golden.npz: found SHA-256 .*: damaged or replaced"):
        self_test(load_bundle(copy))
    (copy / "golden.npz").write_bytes(content[:-7])
    with pytest.raises(UserError, match="golden.npz: found .* bytes, expected .*: cut off"):
        self_test(load_bundle(copy))
    (copy / "golden.npz").write_bytes(b"no archive")
    sign(copy, "golden.npz")
    with pytest.raises(UserError, match="golden.npz: found no readable golden pair"):
        self_test(load_bundle(copy))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entries: entries.pop("logits"), "found no readable golden pair"),
        (lambda entries: entries.update(logits=entries["logits"][:, :9]), "found arrays of"),
        (lambda entries: entries.update(images=entries["images"] + 1), "preprocessing is another"),
    ],
)
def test_a_pair_that_does_not_fit(
    copy: Path, change: Callable[[dict[str, np.ndarray]], None], message: str
) -> None:
    rewrite(copy, change)
    with pytest.raises(UserError, match=message):
        self_test(load_bundle(copy))


def test_a_bundle_without_one(copy: Path) -> None:
    redescribe(copy, lambda description: description.update(golden={}))
    with pytest.raises(UserError, match="found no golden pair for 32 px, expected one"):
        self_test(load_bundle(copy))


def test_images_that_no_pixels_stand_behind(inputs: np.ndarray, expected: np.ndarray) -> None:
    transform = EvalTransform(32, 0.8, "bicubic", (120.0, 115.0, 100.0), (60.0, 50.0, 55.0))
    with pytest.raises(ValueError, match="found no 8-bit pixels behind them"):
        Golden.of(inputs + 0.01, transform, expected)


HF32 = 11  # bits of mantissa after the first one, by CANN's documentation


def with_mantissa(values: np.ndarray, bits: int) -> np.ndarray:
    """Round float32 to the nearest numbers of so many bits of mantissa, ties to the even one."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.rint(mantissa * 2 ** (bits + 1)), exponent - bits - 1).astype(np.float32)


def rounding(network: nn.Cell, bits: int) -> Callable[[np.ndarray], np.ndarray]:
    """A network whose convolutions round what they multiply, and sum in float32."""

    def round_inputs(conv: nn.Cell, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(Tensor(with_mantissa(values.asnumpy(), bits)) for values in inputs)

    for _, cell in network.cells_and_names():
        if isinstance(cell, nn.Conv2d):
            cell.weight.set_data(Tensor(with_mantissa(cell.weight.asnumpy(), bits)))
            cell.register_forward_pre_hook(round_inputs)
    return lambda images: logits_of(network, images)


def test_hf32_keeps_eleven_bits_after_the_first() -> None:
    one, ulp = np.float32(1), np.float32(2**-11)
    values = np.array([one + ulp, one + 0.5 * ulp, one + 1.5 * ulp, -3.1e-38, 0], np.float32)
    rounded = with_mantissa(values, HF32)
    np.testing.assert_array_equal(rounded[:3], [one + ulp, one, one + 2 * ulp])
    np.testing.assert_array_equal(rounded.view(np.uint32) & 0xFFF, 0)
    np.testing.assert_allclose(rounded, values, rtol=2**-12)


def test_an_untouched_bundle_in_hf32_fails_its_self_test(bundle: Bundle) -> None:
    finer = dataclasses.replace(bundle, network=rounding(make_network(), 18))
    assert "top-1 equal on 100%" in self_test(finer)  # it is not the emulation that fails
    hf32 = dataclasses.replace(bundle, network=rounding(make_network(), HF32))
    with pytest.raises(
        UserError, match=r"found logits up to 0.000\d+ off .* expected at most 0.0001"
    ):
        self_test(hf32)


def test_export_in_hf32_would_refuse_the_deploy_form(bundle: Bundle, inputs: np.ndarray) -> None:
    plain = rounding(make_network(), HF32)(inputs)
    deploy = dataclasses.replace(bundle, network=rounding(to_deploy(make_network()), HF32))
    result = compare(deploy, Golden.of(inputs, TRANSFORM, plain))
    assert 3 * result.tolerance < result.difference < 30 * result.tolerance
