"""A segmenter's deploy form against the network that it comes from."""

from __future__ import annotations

import numpy as np
import pytest
from mindspore import Tensor
from segmenters import small_segmenter

from mindcv_poolformer.models.deploy import to_deploy
from mindcv_poolformer.models.deploy.semantic_fpn import DeployedSemanticFPN

FAMILIES = [None, "metaformer_id", "poolformerv2", "convformer", "caformer"]


@pytest.mark.layout
@pytest.mark.parametrize("family", FAMILIES)
def test_the_logits_stay(family: str | None, pynative_mode: None) -> None:
    network = small_segmenter(family)
    images = Tensor(np.random.default_rng(3).standard_normal((2, 3, 70, 97)).astype(np.float32))
    expected = network(images).asnumpy()
    before = {p.name: p.asnumpy().copy() for p in network.get_parameters()}
    deployed = to_deploy(network)
    assert isinstance(deployed, DeployedSemanticFPN)
    names = [parameter.name for parameter in deployed.get_parameters()]
    assert len(set(names)) == len(names) and not any("bn" in name for name in names)
    found = deployed(images).asnumpy()
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.ptp(expected))
    for parameter in network.get_parameters():
        np.testing.assert_array_equal(parameter.asnumpy(), before[parameter.name])
