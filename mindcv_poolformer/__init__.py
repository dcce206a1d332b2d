"""PoolFormer for MindSpore. Importing this package registers every model with MindCV."""

from .runtime import cpu

cpu.tune()  # before MindSpore is imported

from . import models  # noqa: E402

__all__ = ["models"]
