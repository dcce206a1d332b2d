"""Parameters read and written where the deploy forms fold one into another."""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor


def values_of(*parameters: Parameter) -> list[np.ndarray]:
    """Give the values in float64, so that the folding adds no rounding of its own."""
    return [parameter.asnumpy().astype(np.float64) for parameter in parameters]


def fill(parameter: Parameter, values: np.ndarray) -> None:
    """Set a parameter to values, which may have another shape, in float32."""
    parameter.set_data(Tensor(values.astype(np.float32)), slice_shape=True)
