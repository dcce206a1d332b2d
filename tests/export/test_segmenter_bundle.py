"""A segmenter's bundle: read again, it gives the network's logits and the classes of pixels."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from bundles import redescribe
from mindspore import Tensor, nn
from PIL import Image
from segmenters import small_segmenter
from toy_segmenter import ToySegmenter
from without_mindspore import PYTHON, without_mindspore

from mindcv_poolformer.data.segmentation.fitting import EvalTransform
from mindcv_poolformer.data.segmentation.labelling import Labelling
from mindcv_poolformer.data.segmentation.stretch import StretchTransform
from mindcv_poolformer.export.bundle import load_bundle
from mindcv_poolformer.export.choices import Choices
from mindcv_poolformer.export.description import read_description
from mindcv_poolformer.export.golden import self_test
from mindcv_poolformer.export.mindir import Trained, write_bundle
from mindcv_poolformer.export.runtimes import Runtime
from mindcv_poolformer.export.segmenter import load_segmenter_bundle
from mindcv_poolformer.models import dense
from mindcv_poolformer.runtime.errors import UserError

NAME = "semantic_fpn_poolformer_tiny"
CLASSES = ("sky", "sea", "sand", "boat", "bird")
PALETTE = ((10, 20, 30), (40, 50, 60), (70, 80, 90), (100, 110, 120), (255, 0, 128))
TRANSFORM = EvalTransform((128, 64), 32, (120.0, 115.0, 100.0), (60.0, 50.0, 55.0))
SIZES = ((64, 96), (64, 64))


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)


def samples(size: tuple[int, int]) -> np.ndarray:
    transform = StretchTransform.of(TRANSFORM, size)
    return np.stack([transform(picture(90, 120, seed)) for seed in (0, 1)])


def in_pynative(network: nn.Cell, images: np.ndarray) -> np.ndarray:
    ms.set_context(mode=ms.PYNATIVE_MODE)
    logits = network(Tensor(images)).asnumpy()
    ms.set_context(mode=ms.GRAPH_MODE)
    return logits


def toy_logits(network: nn.Cell, images: np.ndarray) -> np.ndarray:
    """By the toy's formula, in float64."""
    n, _, height, width = images.shape
    blocks = images.astype(np.float64).reshape(n, 3, height // 4, 4, width // 4, 4)
    return np.einsum("nchw,ck->nkhw", blocks.mean((3, 5)), network.weight.asnumpy())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    path = tmp_path_factory.mktemp("run") / "best.ckpt"
    path.write_bytes(b"weights")
    labelling = Labelling(PALETTE, reduce_zero_label=True)
    network = small_segmenter(depths=(1, 0, 0, 1))
    return Trained(network, NAME, path, TRANSFORM, CLASSES, labelling)


@pytest.fixture(scope="module")
def toy(trained: Trained) -> Trained:
    """Where the bundle is the subject and not its graph."""
    return dataclasses.replace(trained, network=ToySegmenter())


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory: pytest.TempPathFactory, toy: Trained) -> Path:
    """A bundle of two sizes."""
    target = tmp_path_factory.mktemp("toy") / "bundle"
    first, *further = map(samples, SIZES)
    write_bundle(toy, target, first, Choices(deploy=False), further=further, origin="here")
    return target


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, trained: Trained) -> Path:
    """Of one size, pixels in, with an ONNX graph; the expected logits are PyNative's."""
    target = tmp_path_factory.mktemp("export") / "bundle"
    ms.set_context(mode=ms.PYNATIVE_MODE)
    choices = Choices(takes="uint8", beside="ONNX")
    write_bundle(trained, target, samples((64, 96)), choices)
    ms.set_context(mode=ms.GRAPH_MODE)
    return target


def test_the_description_tells_all_of_it(toy_folder: Path, toy: Trained) -> None:
    told = json.loads((toy_folder / "model.json").read_text())
    assert (told["task"], told["reduce_zero_label"]) == ("segmentation", True)
    assert told["palette"] == [list(colour) for colour in PALETTE]
    assert told["classes"] == list(CLASSES)
    assert EvalTransform.from_dict(told["preprocessing"]) == TRANSFORM
    assert told["output"] == {"name": "logits", "shape": [None, 5, 16, 24], "dtype": "float32"}
    assert told["parameters"] == 15
    assert told["graphs"] == {
        "model.mindir": {"batch_size": None, "image_size": [64, 96]},
        "model_64px.mindir": {"batch_size": None, "image_size": [64, 64]},
    }
    assert told["golden"] == {"64x96": "golden.npz", "64": "golden_64px.npz"}
    assert [proof["image_size"] for proof in told["verification"]] == [[64, 96], [64, 64]]
    for proof in told["verification"]:
        assert proof["max_abs_difference"] <= proof["tolerance"]
        assert proof["label_agreement"] > 0.99 and proof["images"] == 2
    readme = (toy_folder / "README.md").read_text()
    assert "Images of 64x96, 64 px (height x width)" in readme and "--output_dir" in readme
    assert 'python -m mindcv_poolformer.serving "$BUNDLE"' in readme
    assert json.loads((toy_folder / "model-settings.json").read_text()) == {
        "name": NAME,
        "implementation": "mindcv_poolformer.serving.runtime.PoolFormerRuntime",
        "parameters": {"uri": ".", "version": "1"},
    }


def test_a_picture_goes_to_the_graph_of_its_shape(toy_folder: Path, toy: Trained) -> None:
    bundle = load_segmenter_bundle(toy_folder)
    for shape, size in (((50, 81), (64, 96)), ((200, 150), (64, 64)), ((64, 64), (64, 64))):
        image = picture(*shape)
        inputs = StretchTransform.of(TRANSFORM, size)(np.asarray(image))[None]
        expected = toy_logits(toy.network, inputs)
        np.testing.assert_allclose(bundle.logits(image), expected[0], atol=1e-4)
        ms.set_context(mode=ms.PYNATIVE_MODE)
        wide = Tensor(expected.astype(np.float32))
        labels = dense.label_map(wide, size, shape).asnumpy()[0]
        found = bundle.label_map(np.asarray(image))
        assert found.shape == shape and len(np.unique(found)) > 1
        assert (found == labels).mean() > 0.999
    assert self_test(bundle.graphs[64, 64]).startswith("self test at 64 px: logits of 1 image, ")
    assert self_test(bundle.graphs[64, 96]).endswith("labels equal on 100%")


@pytest.mark.parametrize(("file_format", "runtime"), [("MINDIR", "mindspore"), ("ONNX", "onnx")])
def test_a_graph_of_the_tests_own_size_gives_its_classes(
    folder: Path, trained: Trained, file_format: str, runtime: Runtime
) -> None:
    bundle = load_segmenter_bundle(folder, runtime=runtime)
    image = picture(120, 178)  # fitted to 64 x 95, which AlignResize makes 64 x 96
    ms.set_context(mode=ms.PYNATIVE_MODE)
    inputs = Tensor(TRANSFORM(np.asarray(image))[None])
    assert inputs.shape[2:] == (64, 96)
    np.testing.assert_allclose(
        bundle.logits(image), trained.network(inputs).asnumpy()[0], rtol=0, atol=1e-4
    )
    expected = trained.network.segment(inputs, (120, 178)).asnumpy()[0]
    assert (bundle.label_map(image) == expected).mean() > 0.999
    told = json.loads((folder / "model.json").read_text())
    assert told["parameters"] == sum(p.size for p in trained.network.trainable_params())
    proofs = {proof["file_format"]: proof for proof in told["verification"]}
    assert 0 < proofs[file_format]["max_abs_difference"] <= 1e-4


def test_without_mindspore(folder: Path, tmp_path: Path) -> None:
    """The very same labels, though the picture is resized by NumPy there."""
    image = picture(120, 178)
    image.save(tmp_path / "picture.png")
    program = (
        "import sys; from mindcv_poolformer import segment; import numpy\n"
        "numpy.save('labels.npy', segment('picture.png', sys.argv[1]).labels)\n"
        "assert not {'mindspore', 'mindcv', 'torch', 'cv2'} & set(sys.modules)"
    )
    words = [*PYTHON, "-c", program, str(folder)]
    variables = without_mindspore(tmp_path / "packages")
    subprocess.run(words, cwd=tmp_path, check=True, env={**os.environ, **variables})
    expected = load_segmenter_bundle(folder, runtime="onnx").label_map(image)
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), expected)
    assert len(np.unique(expected)) > 1


def test_one_of_the_sizes(toy_folder: Path) -> None:
    alone = load_segmenter_bundle(toy_folder, image_size=(64, 64))
    assert list(alone.graphs) == [(64, 64)]
    with pytest.raises(UserError, match="found 32x64, expected one of the bundle's: 64x96, 64$"):
        load_segmenter_bundle(toy_folder, image_size=(32, 64))


@pytest.mark.long
def test_half_precision_in_fixed_batches_under_a_key(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(bytes(16))
    choices = Choices(
        precision="fp16", batch_sizes=(2,), key_file=str(tmp_path / "key"), deploy=False
    )
    write_bundle(trained, tmp_path / "out", samples((64, 64)), choices)
    bundle = load_segmenter_bundle(tmp_path / "out", key_file=tmp_path / "key")
    image = picture(70, 70)
    inputs = StretchTransform.of(TRANSFORM, (64, 64))(image)[None]
    expected = in_pynative(trained.network, inputs)[0]
    difference = np.abs(bundle.logits(image) - expected).max()
    assert 1e-5 < difference < 0.02 * np.ptp(expected)
    with pytest.raises(UserError, match="encrypted .* expected --dec_key_file"):
        load_segmenter_bundle(tmp_path / "out")


def test_what_is_refused(toy_folder: Path, toy: Trained) -> None:
    with pytest.raises(UserError, match=f"found one of {NAME}, a segmenter, expected a class"):
        load_bundle(toy_folder)
    choices = Choices(gives="probabilities", deploy=False)
    with pytest.raises(UserError, match="output: found probabilities with a segmentation model"):
        write_bundle(toy, toy_folder / "x", samples((64, 64)), choices)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda told: told.update(task="depth"), "task 'depth', expected classification, segm"),
        (lambda told: told["palette"].pop(), "palette: expected red, green and blue"),
        (lambda told: told["palette"].__setitem__(0, [1, 2, 256]), "palette: expected red, green"),
        (lambda told: told.pop("reduce_zero_label"), "found no key 'reduce_zero_label'"),
        (lambda told: told["preprocessing"].pop("mean"), "preprocessing has the keys"),
        (lambda told: told["graphs"]["model.mindir"].update(image_size=[64]), r"image size \[64\]"),
        (lambda told: told["golden"].update({"6x": "golden.npz"}), "found '6x', expected an edge"),
    ],
)
def test_a_damaged_description(
    toy_folder: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    shutil.copytree(toy_folder, tmp_path / "copy")
    redescribe(tmp_path / "copy", change)
    with pytest.raises(UserError, match=message) as caught:
        read_description(tmp_path / "copy")
    assert "\n" not in str(caught.value)
