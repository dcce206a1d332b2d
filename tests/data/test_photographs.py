"""The photographs that are always at hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from mindcv_poolformer.data.photographs import PHOTOGRAPHS, photograph_crops


def test_the_crops_cover_both_photographs() -> None:
    crops = [np.asarray(crop) for crop in photograph_crops(3)]
    assert {crop.shape for crop in crops} == {(256, 256, 3)}
    assert len({crop.tobytes() for crop in crops}) == 16
    for name, of_one in zip(PHOTOGRAPHS, (crops[:8], crops[8:]), strict=True):
        whole = load_sample_image(name)
        top_left, bottom_right = whole[:256, :256], whole[-256:, -256:]
        np.testing.assert_array_equal(of_one[0], top_left)
        np.testing.assert_array_equal(of_one[-1], bottom_right)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (4, "RGBA")])
def test_the_crops_are_converted_as_images_are(channels: int, mode: str) -> None:
    crops = photograph_crops(channels)
    assert {crop.mode for crop in crops} == {mode}
    colours = photograph_crops(3)
    for crop, colour in zip(crops, colours, strict=True):
        assert crop.tobytes() == colour.convert(mode).tobytes()
