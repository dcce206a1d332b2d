"""What the networks are. Importing this registers them with MindCV."""

from .poolformer import PoolFormer
from .variants import VARIANTS, Variant, find_variant

__all__ = ["VARIANTS", "PoolFormer", "Variant", "find_variant"]
