"""Networks of dense prediction. Importing this registers them with MindCV."""

from . import detectors
from .losses import SegmentationLoss
from .mask_rcnn import MaskRCNN
from .mask_rcnn_loss import MaskRCNNLoss
from .retinanet import RetinaNet, RetinaNetLoss
from .segmenters import default_cfgs
from .semantic_fpn import SemanticFPN, label_map

__all__ = [
    "MaskRCNN",
    "MaskRCNNLoss",
    "RetinaNet",
    "RetinaNetLoss",
    "SegmentationLoss",
    "SemanticFPN",
    "default_cfgs",
    "detectors",
    "label_map",
]
