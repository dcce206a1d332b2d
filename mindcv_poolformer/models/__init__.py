"""What the networks are. Importing this registers them with MindCV."""

from .classifier import StagedClassifier
from .metaformer import MetaFormer
from .poolformer import PoolFormer
from .registry import default_cfgs
from .variants import VARIANTS, Variant, find_variant

__all__ = [
    "VARIANTS",
    "MetaFormer",
    "PoolFormer",
    "StagedClassifier",
    "Variant",
    "default_cfgs",
    "find_variant",
]
