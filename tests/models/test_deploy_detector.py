"""A detector's deploy form against the network that it comes from."""

from __future__ import annotations

import numpy as np
import pytest
from detectors import small_detector, small_mask_rcnn
from mindspore import Tensor

from mindcv_poolformer.models.deploy import to_deploy
from mindcv_poolformer.models.deploy.mask_rcnn import DeployedMaskRCNN
from mindcv_poolformer.models.deploy.retinanet import DeployedRetinaNet


@pytest.mark.layout
@pytest.mark.parametrize("family", [None, "metaformer_id", "poolformerv2", "caformer"])
def test_the_maps_stay(family: str | None, pynative_mode: None) -> None:
    network = small_detector(family, num_classes=3).set_train(False)
    images = Tensor(np.random.default_rng(3).standard_normal((2, 3, 70, 97)).astype(np.float32))
    expected = [x.asnumpy() for maps in network(images) for x in maps]
    before = {p.name: p.asnumpy().copy() for p in network.get_parameters()}
    deployed = to_deploy(network)
    assert isinstance(deployed, DeployedRetinaNet)
    names = [parameter.name for parameter in deployed.get_parameters()]
    assert len(set(names)) == len(names)
    found = [x.asnumpy() for maps in deployed(images) for x in maps]
    assert len(found) == 10
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5 * np.ptp(other))
    for parameter in network.get_parameters():
        np.testing.assert_array_equal(parameter.asnumpy(), before[parameter.name])


@pytest.mark.layout
@pytest.mark.parametrize("family", [None, "caformer"])
def test_the_objects_of_two_passes_stay(family: str | None, pynative_mode: None) -> None:
    settings = {"num_classes": 3, "proposals": 90, "candidates": 60, "detections": 20}
    network = small_mask_rcnn(family, **settings).set_train(False)
    values = np.random.default_rng(3).standard_normal((1, 3, 64, 96)).astype(np.float32)
    images, shapes = Tensor(values), Tensor([(60, 91)])
    expected = [x.asnumpy() for x in network.detect(images, shapes)]
    before = {p.name: p.asnumpy().copy() for p in network.get_parameters()}
    deployed = to_deploy(network)
    assert isinstance(deployed, DeployedMaskRCNN)
    names = [parameter.name for parameter in deployed.get_parameters()]
    assert len(set(names)) == len(names)
    found = [x.asnumpy() for x in deployed.detect(images, shapes)]
    assert expected[3][0] > 5
    for one, other, close in zip(found, expected, (1e-3, 1e-5, 0, 0, 1e-4), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=close)
    for parameter in network.get_parameters():
        np.testing.assert_array_equal(parameter.asnumpy(), before[parameter.name])
