"""What the networks are. Importing this registers them with MindCV."""

import sys

if sys.argv[:1] == ["-m"] and __name__ in sys.orig_argv:  # a command, imported before __main__
    from ..runtime import requires_mindspore  # noqa: F401

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
