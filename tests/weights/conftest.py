from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mindcv.models import registry as mindcvs
from official import official_state_dict
from safetensors.numpy import save_file

from mindcv_poolformer.models import registry, variants
from mindcv_poolformer.models.dense import segmenters


@pytest.fixture(scope="session")
def official_s12() -> dict[str, np.ndarray]:
    """The state dict of a poolformer_s12 under sail-sg's names. Not to be changed."""
    return official_state_dict("poolformer_s12")


@pytest.fixture(scope="session")
def official_file(tmp_path_factory: pytest.TempPathFactory, official_s12: dict) -> Path:
    """The same as a .safetensors file."""
    path = tmp_path_factory.mktemp("official") / "s12.safetensors"
    save_file(official_s12, path)
    return path


@pytest.fixture(scope="module")
def tiny_segmenter() -> Iterator[str]:
    """The name of a segmentation model on a tiny backbone, known as long as a file's tests run."""
    backbone, name = "poolformer_tiny", "semantic_fpn_poolformer_tiny"
    registry.register(
        backbone,
        variants.Variant(
            (1, 1, 1, 1), (8, 16, 24, 40), 0.1, 0.9, 0, 0.0, 0.0, layer_scale_init=1e-5
        ),
    )
    segmenters.register(backbone)
    yield name
    for known, module in ((backbone, registry), (name, segmenters)):
        del module.default_cfgs[known]
        mindcvs._model_entrypoints.pop(known)
        mindcvs._model_to_module.pop(known)
        for models in mindcvs._module_to_models.values():
            models.discard(known)
    del variants._TABLE[backbone], variants._SEGMENTERS[name]
