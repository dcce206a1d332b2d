"""Checkpoints as training writes them, and what their networks say."""

from __future__ import annotations

import json
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from official import load_official_weights

from mindcv_poolformer.data.preprocess import EvalTransform
from mindcv_poolformer.models import PoolFormer

NAME = "poolformer_tiny"
CLASSES = tuple(f"class {letter}" for letter in "abcdefghij")
TRANSFORM = EvalTransform(32, 0.8, "bicubic", (120.0, 115.0, 100.0), (60.0, 50.0, 55.0))


def make_network() -> nn.Cell:
    """Of few blocks: most of these tests' time is MindSpore's compiler."""
    network = PoolFormer(depths=(1, 0, 0, 1), dims=(64, 128, 256, 384), num_classes=10)
    return load_official_weights(network).set_train(False)


def write_checkpoint(network: nn.Cell, name: str, path: Path) -> Path:
    metadata = {
        "model": name,
        "num_classes": 10,
        "in_channels": 3,
        "classes": list(CLASSES),
        "preprocessing": TRANSFORM.to_dict(),
    }
    ms.save_checkpoint(network, str(path), append_dict={"metadata": json.dumps(metadata)})
    return path


def logits_of(network: nn.Cell, inputs: np.ndarray) -> np.ndarray:
    """In PyNative mode."""
    mode = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    logits = network(Tensor(inputs)).asnumpy()
    ms.set_context(mode=mode)
    return logits
