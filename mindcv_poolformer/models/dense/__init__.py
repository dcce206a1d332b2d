"""Networks of dense prediction. Importing this registers them with MindCV."""

from . import detectors
from .losses import SegmentationLoss
from .retinanet import RetinaNet, RetinaNetLoss
from .segmenters import default_cfgs
from .semantic_fpn import SemanticFPN, label_map

__all__ = [
    "RetinaNet",
    "RetinaNetLoss",
    "SegmentationLoss",
    "SemanticFPN",
    "default_cfgs",
    "detectors",
    "label_map",
]
