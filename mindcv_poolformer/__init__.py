"""PoolFormer for MindSpore. Importing this package registers every model with MindCV."""

from . import models

__all__ = ["models"]
