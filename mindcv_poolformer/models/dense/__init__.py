"""Networks of dense prediction. Importing this registers them with MindCV."""

from .losses import SegmentationLoss
from .segmenters import default_cfgs
from .semantic_fpn import SemanticFPN, label_map

__all__ = ["SegmentationLoss", "SemanticFPN", "default_cfgs", "label_map"]
