"""What the networks of dense prediction have in common: they stand on a backbone."""

from __future__ import annotations

from typing import Any

from mindspore import nn

from ..classifier import StagedClassifier


class OnBackbone(nn.Cell):
    """A network whose parts read the maps of ``backbone``.

    Args:
        backbone: a network with ``features_only``; any PoolFormer or MetaFormer.
        num_classes: of what it tells apart.

    Attributes:
        out_indices: the stages whose maps it wants of the backbone, None for any.

    Raises:
        ValueError: the backbone is a classifier, or gives other maps.
    """

    out_indices: tuple[int, ...] | None = None

    def __init__(self, backbone: StagedClassifier, num_classes: int) -> None:
        super().__init__()
        if not backbone.features_only:
            raise ValueError("backbone: found a classifier, expected features_only=True")
        if self.out_indices not in (None, backbone.out_indices):
            raise ValueError(
                f"backbone: found out_indices {backbone.out_indices}, expected {self.out_indices}"
            )
        self.backbone = backbone
        self.num_classes = num_classes
        self.in_channels = backbone.in_channels
        self.widths = tuple(backbone.dims[i] for i in backbone.out_indices)  # of the maps
        self.variant: str | None = None  # the name it was created by
        self.classes: tuple[str, ...] = ()  # their names, and how to prepare images, as the
        self.preprocessing: dict[str, Any] | None = None  # weights' metadata tell it

    def in_head(self, parameter_name: str) -> bool:
        """Whether a parameter is trained where the backbone is frozen."""
        return not parameter_name.startswith("backbone.")

    def layer_of(self, parameter_name: str) -> int:
        """Tell how deep a parameter lies: as the backbone has it, neck and heads on top."""
        return self.backbone.layer_of(parameter_name.removeprefix("backbone."))

    def recompute_blocks(self) -> None:
        """As :meth:`StagedClassifier.recompute_blocks`, of the backbone."""
        self.backbone.recompute_blocks()
