"""ONNX graphs of segmenters, by ONNX Runtime against the networks themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from mindspore import Tensor
from segmenters import small_segmenter

from mindcv_poolformer.data.segmentation.transforms import official_test
from mindcv_poolformer.export.onnx.write import write_onnx
from mindcv_poolformer.models.deploy import to_deploy


@pytest.mark.parametrize("family", [None, "metaformer_id", "caformer"])
def test_the_graph_gives_the_logits_at_odd_sizes(
    family: str | None, tmp_path: Path, pynative_mode: None
) -> None:
    network = small_segmenter(family)
    path = tmp_path / "any.onnx"
    write_onnx(to_deploy(network), path, official_test())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(4)
    for count, height, width in ((1, 32, 64), (2, 71, 97)):
        images = rng.standard_normal((count, 3, height, width)).astype(np.float32)
        expected = network(Tensor(images)).asnumpy()
        (found,) = session.run(None, {"images": images})
        assert found.shape == (count, 5, (height + 1) // 4, (width + 1) // 4)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.ptp(expected))
