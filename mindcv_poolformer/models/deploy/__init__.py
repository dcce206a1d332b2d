"""The networks as they serve: the same logits from fewer passes over memory."""

from __future__ import annotations

from mindspore import nn

from ..classifier import StagedClassifier
from ..dense.mask_rcnn import MaskRCNN
from ..dense.retinanet import RetinaNet
from ..dense.semantic_fpn import SemanticFPN
from ..hybrid import Hybrid
from ..metaformer import MetaFormer
from ..parts.activations import GELU
from ..parts.mixers import choose_attention
from .fpn import Backbone
from .hybrid import DeployedHybrid
from .mask_rcnn import DeployedMaskRCNN
from .metaformer import DeployedMetaFormer
from .poolformer import DeployedPoolFormer
from .retinanet import DeployedRetinaNet
from .semantic_fpn import DeployedSemanticFPN

Deployed = Backbone | DeployedSemanticFPN | DeployedRetinaNet | DeployedMaskRCNN


def to_deploy(model: StagedClassifier | SemanticFPN | RetinaNet | MaskRCNN) -> Deployed:
    """Fold a network's norms and layer scales into its weights; the model itself is left alone.

    Let GroupNorm be gn(x) = g (x - m) / s + b with a sample's mean m and deviation s.

    1. A mean keeps constants, so pool(gn1(x)) - gn1(x) = g1 (pool(x) - x) / s: m and b1 go.
    2. The first half of a block is x + (ls1 g1) (pool(x) - x) / s: one vector, and no norm.
    3. W1 gn2(x) + c1 = (W1 g2) (x - m) / s + (W1 b2 + c1): a norm without scale and shift.
    4. ls2 (W2 h + c2) = (ls2 W2) h + ls2 c2: no layer scale.
    5. W mean(gn(x)) + c = (W g) (mean(x) - m) / s + (W b + c): the last norm works on (N, C).

    A hybrid's is told in :class:`DeployedHybrid`, a MetaFormer's in :class:`DeployedMetaFormer`, a
    segmenter's in :class:`DeployedSemanticFPN`, a detector's in :class:`DeployedRetinaNet` and
    :class:`DeployedMaskRCNN`.

    Raises:
        ValueError: the model gives feature maps, or has no classifier.
    """
    if isinstance(model, SemanticFPN):
        return DeployedSemanticFPN(model, _deployed(model.backbone))
    if isinstance(model, RetinaNet):
        return DeployedRetinaNet(model, _deployed(model.backbone))
    if isinstance(model, MaskRCNN):
        return DeployedMaskRCNN(model, _deployed(model.backbone))
    if model.features_only or model.num_classes == 0:
        raise ValueError("to_deploy: found a network without classifier, expected one with it")
    return _deployed(model)


def _deployed(model: StagedClassifier) -> Backbone:
    if isinstance(model, Hybrid):
        return DeployedHybrid(model)
    return DeployedMetaFormer(model) if isinstance(model, MetaFormer) else DeployedPoolFormer(model)


def leave_out_ascend_operators(network: nn.Cell) -> nn.Cell:
    """Have a network compute with what every device has, in place; for graphs that others load."""
    choose_attention(network, flash=False)
    for _, cell in network.cells_and_names():
        if isinstance(cell, GELU):
            cell.portable = True
    return network
