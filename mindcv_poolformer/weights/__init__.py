"""Checkpoints into networks, strictly; and everybody's weights into checkpoints and back."""

from .load import check_model, head_order, load_weights
from .recognise import ModelWeights, read_weights
from .write import write_weights

__all__ = [
    "ModelWeights",
    "check_model",
    "head_order",
    "load_weights",
    "read_weights",
    "write_weights",
]
