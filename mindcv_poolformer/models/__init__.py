"""What the networks are. Importing this registers them with MindCV."""

from .classifier import StagedClassifier
from .dense import MaskRCNN, RetinaNet, SemanticFPN
from .hybrid import Hybrid
from .metaformer import MetaFormer
from .poolformer import PoolFormer
from .registry import default_cfgs
from .variants import DETECTORS, POOLFORMERS, SEGMENTERS, VARIANTS, Variant, find_variant

__all__ = [
    "DETECTORS",
    "POOLFORMERS",
    "SEGMENTERS",
    "VARIANTS",
    "Hybrid",
    "MaskRCNN",
    "MetaFormer",
    "PoolFormer",
    "RetinaNet",
    "SemanticFPN",
    "StagedClassifier",
    "Variant",
    "default_cfgs",
    "find_variant",
]
