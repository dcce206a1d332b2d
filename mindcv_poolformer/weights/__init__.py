"""Checkpoints into networks, strictly; and everybody's weights into checkpoints and back."""

import sys

if sys.argv[:1] == ["-m"] and __name__ in sys.orig_argv:  # a command, imported before __main__
    from ..runtime import requires_mindspore  # noqa: F401

from .load import load_weights, network_of, start_from
from .model_weights import ModelWeights
from .pretrained import find_weights, load_pretrained
from .recognise import read_weights
from .write import save_weights, write_weights

__all__ = [
    "ModelWeights",
    "find_weights",
    "load_pretrained",
    "load_weights",
    "network_of",
    "read_weights",
    "save_weights",
    "start_from",
    "write_weights",
]
