"""The gradients of a network, of a compiled graph and of operators run one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn

from mindcv_poolformer.models.outputs import soft_cross_entropy


def gradients_in_both_modes(
    network: nn.Cell, images: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Give loss, logits and gradients as :func:`in_both_modes`, for images of classes 0, 1, ..."""
    network.set_train()
    targets = Tensor(np.eye(network.num_classes, dtype=np.float32)[: len(images)])

    def forward(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = network(images)
        return soft_cross_entropy(logits, targets), logits

    return in_both_modes(forward, network.trainable_params(), Tensor(images), targets)


def in_both_modes(
    forward: Callable[..., tuple[Tensor, ...]], weights: Sequence[Parameter], *inputs: Tensor
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Give what ``forward`` gives and then the gradients of its first value, one for each weight.

    First of a graph, then of PyNative: what graph kernels fuse should compute what the operators
    compute. Leaves PyNative mode on.
    """
    found = []
    for mode in (ms.GRAPH_MODE, ms.PYNATIVE_MODE):
        ms.set_context(mode=mode)
        values, gradients = ms.value_and_grad(forward, None, weights, has_aux=True)(*inputs)
        found.append([each.asnumpy() for each in (*values, *gradients)])
    return found[0], found[1]
