"""The script for MindSpore Lite, as far as it goes without an NPU."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from benchmarks.lite import golden, load
from mindcv_poolformer.export.bundle import Bundle
from mindcv_poolformer.runtime.errors import UserError


def test_golden_images_are_what_the_graph_takes(folder: Path, bundle: Bundle) -> None:
    images, expected = golden(folder)
    assert 1 <= len(images) <= 4
    np.testing.assert_allclose(bundle.outputs(images), expected, rtol=0, atol=5e-5)


@pytest.mark.skipif(
    importlib.util.find_spec("mindspore_lite") is not None, reason="MindSpore Lite is here"
)
def test_without_the_package(folder: Path) -> None:
    given = argparse.Namespace(bundle=folder, model=None, precision="enforce_fp32", device_id=0)
    with pytest.raises(UserError, match="^lite: found no package mindspore_lite, expected"):
        load(given)
