"""A training step with all that one may have."""

from __future__ import annotations

import numpy as np
import pytest
from mindspore import Tensor
from mindspore.amp import DynamicLossScaler

from mindcv_poolformer.models import PoolFormer
from mindcv_poolformer.models.outputs import soft_cross_entropy
from mindcv_poolformer.training.optimizer import AdamW
from mindcv_poolformer.training.step import Labelled, TrainStep


@pytest.fixture
def step() -> TrainStep:
    network = PoolFormer((1, 1, 1, 1), (4, 4, 4, 4), num_classes=2)
    network.head.bias.requires_grad = False
    return TrainStep(
        Labelled(network, soft_cross_entropy),
        AdamW(network.trainable_params(), weight_decay=0.05),
        Tensor(np.ones(3, np.float32)),
        DynamicLossScaler(8.0, 2, 10),
        accumulation_steps=2,
        ema_decay=0.9,
    )
