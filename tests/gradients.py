"""The gradients of a network, of a compiled graph and of operators run one by one."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from mindcv_poolformer.models.outputs import soft_cross_entropy


def gradients_in_both_modes(
    network: nn.Cell, images: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Give loss and gradients of a graph, then of PyNative, for images of classes 0, 1, ...

    What graph kernels fuse should compute what the operators compute. Leaves PyNative mode on.
    """
    network.set_train()
    targets = Tensor(np.eye(network.num_classes, dtype=np.float32)[: len(images)])

    def loss(images: Tensor, targets: Tensor) -> Tensor:
        return soft_cross_entropy(network(images), targets)

    found = []
    for mode in (ms.GRAPH_MODE, ms.PYNATIVE_MODE):
        ms.set_context(mode=mode)
        step = ms.value_and_grad(loss, None, network.trainable_params())
        value, gradients = step(Tensor(images), targets)
        found.append([value.asnumpy(), *(gradient.asnumpy() for gradient in gradients)])
    return found[0], found[1]
