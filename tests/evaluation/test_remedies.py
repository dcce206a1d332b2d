"""Segmenters and detectors whose logits are not finite."""

from __future__ import annotations

import numpy as np
import pytest
from mindspore import Tensor

from mindcv_poolformer.evaluation import detection, segmentation
from mindcv_poolformer.runtime.errors import UserError

IMAGES = Tensor(np.zeros((1, 3, 1, 1), np.float32))
REFUSED = "^validation: found logits that are not finite, .*"
each_level = pytest.mark.parametrize(
    ("level", "remedy"), [("O0", "in float32 .* earlier checkpoint"), ("O3", "val_amp_level O0")]
)


@each_level
def test_a_segmenter_s_are_refused(level: str, remedy: str) -> None:
    logits = Tensor(np.array([[[[0.0]], [[np.nan]]]], np.float32))
    label = segmentation._labeller(lambda images: logits, level)
    with pytest.raises(UserError, match=REFUSED + remedy):
        label(IMAGES, (1, 1))


@each_level
def test_a_detector_s_are_refused(level: str, remedy: str) -> None:
    nothing = [Tensor(np.zeros(shape, np.float32)) for shape in ((1, 0, 4), (1, 0), (1, 0))]
    count = Tensor(np.array([0], np.int32))
    detect = detection._detector(lambda *inputs: (Tensor(False), *nothing, count), level)
    with pytest.raises(UserError, match=REFUSED + remedy):
        detect(IMAGES, IMAGES, IMAGES)
