"""The official PyTorch code's outputs, and the weights that go with them.

``fixtures/official_logits.npz`` holds logits, losses and gradient norms of sail-sg/poolformer and
sail-sg/metaformer; their weights rebuild from the parameters' official names.
``fixtures/official_float64.npz`` holds what the MetaFormers' logits would be without rounding: the
same network of PyTorch's functions in float64. In float32 it gives the official logits, bit for
bit where no convolution takes part. Those weights magnify rounding: see ``rounding_of``.
``fixtures/timm_logits.npz`` holds the parameter names and, on ``default_rng(0)``'s (2, 3, 64, 64),
the logits of timm 1.0.31; its weights rebuild in the same way from timm's names. Those of its
MetaFormers are computed in float64, by ``timm.create_model(name).eval().double()``, and the fixture
has their parameters' shapes too, filled up with zeros to four numbers.

``fixtures/dense`` is of the official models of dense prediction in float32: sail-sg/poolformer's
backbone and configurations with mmseg 0.19.0, mmdet 2.19.0 and mmcv 1.3.14. Their weights rebuild
likewise.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import mindcv
import numpy as np
import pytest
from mindspore import Tensor, nn
from mindspore.nn.utils import no_init_parameters

from mindcv_poolformer.models import PoolFormer
from mindcv_poolformer.weights.names import HUGGINGFACE

FIXTURES = Path(__file__).parent / "fixtures"
OUTPUTS = np.load(FIXTURES / "official_logits.npz")
EXACT = np.load(FIXTURES / "official_float64.npz")
TIMM_OUTPUTS = np.load(FIXTURES / "timm_logits.npz")
SHAPES: dict[str, dict[str, list[int]]] = json.loads(
    (FIXTURES / "official_state_dict_shapes.json").read_text()
)


def rounding_of(variant: str) -> float:
    """By how much the official float32 logits of a MetaFormer are off, from 2e-6 to 0.08."""
    return float(np.abs(OUTPUTS[f"{variant}/logits"] - EXACT[variant]).max())


PYTORCH = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def official_name(name: str) -> str:
    """The name in the official state dict of one of our parameters."""
    stem, dot, leaf = name.rpartition(".")
    return f"{stem}{dot}{PYTORCH.get(leaf, leaf)}"


@lru_cache(maxsize=400)
def official_weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value behind the fixtures of the parameter of that official name; not to be changed."""
    z = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    leaf = name.rpartition(".")[2]
    if "random_matrix" in name:
        odds = np.exp(z)
        value = odds / odds.sum(-1, keepdims=True)
    elif "layer_scale" in name or "res_scale" in name:
        value = 0.3 + 0.05 * z
    elif leaf == "running_var":
        value = 1 + 0.1 * z
    elif leaf in ("scale", "bias") and shape == (1,):
        value = (0.8944 if leaf == "scale" else -0.4472) + 0.05 * z
    elif len(shape) >= 2:
        value = z / np.sqrt(np.prod(shape[1:]))
    elif leaf == "weight":
        value = 1 + 0.1 * z
    else:
        value = 0.1 * z
    value = _for_detectors(name, value).astype(np.float32)
    value.flags.writeable = False
    return value


def _for_detectors(name: str, value: np.ndarray) -> np.ndarray:
    """Spread the scores of those whose fixtures would else hold no surer and no less sure boxes."""
    factors = {"retina_cls": 4, "rpn_cls": 0.5, "fc_cls": 4, "fc_reg": 2}
    layer, _, leaf = name.rpartition(".")
    layer = layer.rpartition(".")[2]
    if (layer, leaf) == ("retina_cls", "bias"):
        return value - 3
    return factors.get(layer, 1) * value if leaf == "weight" else value


def without_values(name: str, **settings: Any) -> nn.Cell:
    """Create a model of which nothing is drawn: for its shapes, or for values that are to come."""
    with no_init_parameters():
        return mindcv.create_model(name, **settings)


def load_official_weights(network: nn.Cell) -> nn.Cell:
    """Give every parameter of a network the value behind the fixtures."""
    for parameter in network.get_parameters():
        name = official_name(parameter.name)
        parameter.set_data(Tensor(official_weight(name, parameter.shape)))
    return network


def official_state_dict(variant: str) -> dict[str, np.ndarray]:
    """A checkpoint of sail-sg's: the weights behind the fixtures, under the official names.

    The variant is one of official_state_dict_shapes.json.
    """
    return {name: official_weight(name, tuple(shape)) for name, shape in SHAPES[variant].items()}


def transformers_twin(network: PoolFormer, dims: Sequence[int]) -> Any:
    """A PoolFormer of transformers with the same weights, drawn by its own names.

    Skips the test where torch or transformers is missing.
    """
    torch = pytest.importorskip("torch", reason="needs torch to compare with")
    transformers = pytest.importorskip("transformers", reason="needs transformers to compare with")
    config = transformers.PoolFormerConfig(
        depths=list(network.depths), hidden_sizes=list(dims), num_labels=network.num_classes
    )
    theirs = transformers.PoolFormerForImageClassification(config).eval()
    state = {
        name: torch.tensor(official_weight(name, tuple(value.shape)))
        for name, value in theirs.state_dict().items()
    }
    theirs.load_state_dict(state)
    for parameter in network.get_parameters():
        parameter.set_data(Tensor(state[HUGGINGFACE.theirs(parameter.name)].numpy()))
    return theirs
