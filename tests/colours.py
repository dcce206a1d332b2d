"""A network that tells colours, by weights set by hand."""

from __future__ import annotations

import numpy as np
from mindspore import Tensor

from mindcv_poolformer.models import PoolFormer


def tell_colours(network: PoolFormer, scale: float = 1.0) -> PoolFormer:
    """Make classes 0 to 2 red, green and blue: the more of it anywhere, the larger the logit.

    The blocks' layer scales are 0, and the strided convolutions average red, green and blue from
    the image down to the first three channels of each map. Further classes have logits 0, -1, ...
    """
    for parameter in network.get_parameters():
        value = np.zeros(parameter.shape, np.float32)
        if parameter.name.endswith("proj.weight"):
            value[range(3), range(3)] = 1 / np.prod(parameter.shape[2:])
        elif parameter.name == "head.weight":
            value[range(3), range(3)] = scale
        elif parameter.name == "head.bias":
            value[3:] = -np.arange(len(value) - 3)
        elif parameter.name.endswith("gamma"):
            value += 1
        parameter.set_data(Tensor(value))
    return network.set_train(False)
