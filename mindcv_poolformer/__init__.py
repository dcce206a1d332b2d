"""PoolFormer for MindSpore. Importing this package registers every model with MindCV.

It does so once MindCV is imported, whoever does that: a bundle in ONNX Runtime wants neither MindCV
nor MindSpore, whose import takes seconds, nor that they are installed.
"""

# ruff: noqa: E402
from .runtime import interrupts

interrupts.quit_while_importing()  # before all that takes its time

import atexit
import sys
from importlib import import_module
from typing import Any

from .runtime import cpu, environment, streams
from .runtime.arrival import after_import
from .runtime.errors import UserError

streams.open_closed()
try:
    environment.check_log_levels()
except UserError as error:  # no script has begun yet that could say it
    sys.exit(f"error: {error}")


def _set_up_mindspore() -> None:
    from mindspore import nn

    cpu.fuse()
    # MindSpore 2.10's destructor counts Cells in modules that a closing interpreter has cleared,
    # and would print an "Exception ignored" for each that is left.
    atexit.register(delattr, nn.Cell, "__del__")


def _lend_weights() -> None:
    """Have the registry load published weights, of whose files models know nothing."""
    registry: Any = import_module(".models.registry", __name__)

    def load_pretrained(network: Any, model: str) -> None:
        import_module(".weights", __name__).load_pretrained(network, model)

    registry.load_pretrained = load_pretrained


if environment.is_installed("mindspore"):
    cpu.tune()  # before MindSpore is imported
    cpu.block_broken_pipes()  # in the main thread, whichever imports it
    after_import("mindspore", _set_up_mindspore)
    after_import(f"{__name__}.models.registry", _lend_weights)
    after_import("mindcv", lambda: import_module(".models", __name__))

__all__ = [
    "ImageProcessor",
    "classify",
    "detect",
    "load_bundle",
    "load_detector",
    "load_detector_bundle",
    "load_model",
    "load_segmenter",
    "load_segmenter_bundle",
    "segment",
]
if environment.is_installed("mindspore"):
    __all__ += ["models", "weights"]

_ROOMS = {
    "ImageProcessor": "data.processor",
    "classify": "classification",
    "detect": "detection",
    "load_bundle": "export.bundle",
    "load_detector": "detection",
    "load_detector_bundle": "export.detector",
    "load_model": "classification",
    "load_segmenter": "segmentation",
    "load_segmenter_bundle": "export.segmenter",
    "segment": "segmentation",
}


def __getattr__(name: str) -> Any:
    """The surfaces, imported when they are asked for."""
    if name in ("models", "weights"):
        return import_module(f".{name}", __name__)
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_ROOMS[name]}", __name__), name)
