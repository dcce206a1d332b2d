"""MetaFormers and hybrids as bundles: what is read again gives the network's own logits."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from official import load_official_weights
from onnxruntime import InferenceSession

from mindcv_poolformer.data.preprocess import EvalTransform
from mindcv_poolformer.export.bundle import load_bundle
from mindcv_poolformer.export.choices import Choices
from mindcv_poolformer.export.mindir import Trained, write_bundle
from mindcv_poolformer.export.onnx.write import write_onnx
from mindcv_poolformer.models import Hybrid, MetaFormer
from mindcv_poolformer.models.deploy import to_deploy
from mindcv_poolformer.models.variants import FAMILIES

CLASSES = tuple("abcdefg")
HYBRIDS = [family for family, parts in FAMILIES.items() if parts.hybrid]
ONE_SIZE = ("randformer", *(f for f in HYBRIDS if f != "metaformer_id"))


def trained(family: str, image_size: int, folder: Path) -> Trained:
    cell = Hybrid if FAMILIES[family].hybrid else MetaFormer
    network = cell((1, 0, 0, 1), (32, 32, 64, 64), family, num_classes=len(CLASSES))
    load_official_weights(network).set_train(False)
    checkpoint = folder / "best.ckpt"
    ms.save_checkpoint(network, str(checkpoint))
    transform = EvalTransform(image_size, 1.0, "bicubic", (120.0,) * 3, (60.0,) * 3)
    return Trained(network, f"{family}_s18", checkpoint, transform, CLASSES)


@pytest.mark.long
@pytest.mark.parametrize(
    ("family", "deploy"),
    [
        ("randformer", True),
        ("poolformerv2", True),
        ("caformer", True),  # and what convformer has
        ("metaformer_ppaa", True),
        ("randformer", False),
        ("caformer", False),
    ],
)
def test_bundle_gives_the_logits(
    family: str, deploy: bool, tmp_path: Path, pynative_mode: None
) -> None:
    size = 224 if family in ONE_SIZE else 96
    pixels = np.random.default_rng(2).integers(0, 256, (3, 3, size, size))
    images = ((pixels - 120) / 60).astype(np.float32)
    given = trained(family, size, tmp_path)
    expected = given.network(Tensor(images)).asnumpy()
    write_bundle(given, tmp_path / "bundle", images, Choices(deploy=deploy))
    bundle = load_bundle(tmp_path / "bundle")
    for count in (3, 1):  # a dynamic batch
        found = bundle.logits(images[:count])
        np.testing.assert_allclose(found, expected[:count], rtol=0, atol=5e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_onnx_gives_the_logits(family: str, tmp_path: Path) -> None:
    """The bundle's own proof runs ONNX Runtime too; here at another size, where there is one."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    size = 224 if family in ONE_SIZE else 96
    given = trained(family, size, tmp_path)
    path = tmp_path / "model.onnx"
    write_onnx(to_deploy(given.network), path, given.transform)
    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    for count, edge in ((2, size), (1, size if family in ONE_SIZE else 128)):
        images = np.random.default_rng(count).standard_normal((count, 3, edge, edge))
        images = images.astype(np.float32)
        (found,) = session.run(None, {"images": images})
        expected = given.network(Tensor(images)).asnumpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
