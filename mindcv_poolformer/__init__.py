"""PoolFormer for MindSpore. Importing this package registers every model with MindCV."""

from importlib import import_module
from typing import Any

from .runtime import cpu

cpu.tune()  # before MindSpore is imported

from . import models, weights  # noqa: E402

cpu.fuse()

models.registry.load_pretrained = weights.load_pretrained

__all__ = ["ImageProcessor", "classify", "load_model", "models", "weights"]

_ROOMS = {
    "ImageProcessor": "data.processor",
    "classify": "classification",
    "load_model": "classification",
}


def __getattr__(name: str) -> Any:
    """The surfaces, imported when they are asked for."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_ROOMS[name]}", __name__), name)
