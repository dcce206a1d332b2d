"""PoolFormer for MindSpore. Importing this package registers every model with MindCV.

Without MindSpore it takes bundles alone, which ONNX Runtime runs.
"""

# ruff: noqa: E402
from .runtime import interrupts

interrupts.quit_while_importing()  # before all that takes its time

import atexit
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from .runtime import cpu, environment, streams
from .runtime.errors import UserError

streams.open_closed()
try:
    environment.check_log_levels()
except UserError as error:  # no script has begun yet that could say it
    sys.exit(f"error: {error}")
if find_spec("mindspore"):
    cpu.tune()  # before MindSpore is imported

    from mindspore import nn

    from . import models, weights

    cpu.fuse()

    # MindSpore 2.10's destructor counts Cells in modules that a closing interpreter has cleared,
    # and would print an "Exception ignored" for each that is left.
    atexit.register(delattr, nn.Cell, "__del__")

    models.registry.load_pretrained = weights.load_pretrained

__all__ = [
    "ImageProcessor",
    "classify",
    "load_bundle",
    "load_model",
    "load_segmenter",
    "load_segmenter_bundle",
    "models",
    "segment",
    "weights",
]

_ROOMS = {
    "ImageProcessor": "data.processor",
    "classify": "classification",
    "load_bundle": "export.bundle",
    "load_model": "classification",
    "load_segmenter": "segmentation",
    "load_segmenter_bundle": "export.segmenter",
    "segment": "segmentation",
}


def __getattr__(name: str) -> Any:
    """The surfaces, imported when they are asked for."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_ROOMS[name]}", __name__), name)
