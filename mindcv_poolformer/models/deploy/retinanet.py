"""A RetinaNet as it serves."""

from __future__ import annotations

from mindspore import Tensor, nn

from ..dense.retinanet import RetinaNet
from ..parts.layout import to_channels_first
from .folding import copy_of
from .fpn import Backbone, DeployedFPN


class DeployedRetinaNet(nn.Cell):
    """What to_deploy makes of a RetinaNet: images (N, C, H, W) to logits and box differences.

    The backbone's blocks are those of its classifier's deploy form, and the maps' own norms go into
    the neck, see :class:`DeployedFPN`.

    Args:
        model: left alone.
        backbone: the deploy form of its backbone.
    """

    def __init__(self, model: RetinaNet, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = DeployedFPN(model)
        self.bbox_head = copy_of(model.bbox_head)
        self.selection = model.selection
        self.num_classes = model.num_classes
        self.set_train(False)

    def construct(self, images: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        logits, deltas = self.bbox_head(self.neck(self.backbone.stage_maps(images)))
        return (
            tuple([to_channels_first(x) for x in logits]),
            tuple([to_channels_first(x) for x in deltas]),
        )
