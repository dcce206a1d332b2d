"""Networks of dense prediction. Importing this registers them with MindCV."""

from .entry_points import Dense, default_cfgs
from .losses import SegmentationLoss
from .mask_rcnn import MaskRCNN
from .mask_rcnn_loss import MaskRCNNLoss
from .retinanet import RetinaNet, RetinaNetLoss
from .semantic_fpn import SemanticFPN, label_map

__all__ = [
    "Dense",
    "MaskRCNN",
    "MaskRCNNLoss",
    "RetinaNet",
    "RetinaNetLoss",
    "SegmentationLoss",
    "SemanticFPN",
    "default_cfgs",
    "label_map",
]
