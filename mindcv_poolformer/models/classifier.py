"""What a PoolFormer and a MetaFormer have in common: four stages, a head, names of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mindspore import Parameter, Tensor, nn
from mindspore.common.initializer import Initializer, Normal, Zero, initializer

from .outputs import ClassifierOutput, check_labels, cross_entropy, name_classes
from .parts.layout import from_channels_first, spatial_mean, to_channels_first

# What stands before the classifier: the official PoolFormer's norm and then the mean over H and W,
# or the mean and then a norm, as everywhere else.
NORM_POOL = "norm_pool"
POOL_NORM = "pool_norm"


class StagedClassifier(nn.Cell):
    """Images (N, C, H, W) to logits (N, num_classes), through four stages at strides 4 to 32.

    A network says in ``_stage`` what a stage does. It has a ``norm`` and a ``head``, or
    ``feature_norms`` in their place. Maps lie as the device likes them (see
    ``parts/layout.py``) and the head is one linear layer, where a network does not say otherwise
    in ``_enter``, ``_leave``, ``_lay_for_device`` and ``_mean``, or in ``_new_head``.

    Args:
        depths: blocks in each stage.
        dims: channels of each stage.
        head_order: "norm_pool" or "pool_norm".
        num_classes: size of the classifier; 0 leaves it out and gives pooled features.
        in_channels: channels of the images.
        drop_path_rate: stochastic depth rate of the last block; it rises linearly from 0.
        features_only: give the maps of the stages in ``out_indices`` instead of logits, at strides
            4, 8, 16 and 32, for dense prediction.
        out_indices: the stages, 0 to 3, whose maps ``features_only`` gives.

    Raises:
        ValueError: ``out_indices`` names a stage that is not there, or none.
    """

    def __init__(
        self,
        depths: Sequence[int],
        dims: Sequence[int],
        *,
        head_order: str,
        num_classes: int = 1000,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        features_only: bool = False,
        out_indices: Sequence[int] = (0, 1, 2, 3),
    ) -> None:
        super().__init__()
        if not out_indices or not set(out_indices) <= set(range(len(dims))):
            raise ValueError(
                f"out_indices: found {tuple(out_indices)}, expected some of 0, 1, 2, 3"
            )
        self.depths, self.dims = tuple(depths), tuple(dims)
        self.num_features = dims[-1]
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.head_order = head_order
        self.features_only = features_only
        self.out_indices = tuple(out_indices)
        self.variant: str | None = None  # the name it was created by
        self.classes: tuple[str, ...] = ()  # their names, whether these are for people, and
        self.for_people = False  # how to prepare images, as the weights' metadata tell it
        self.preprocessing: dict[str, Any] | None = None
        self.drop_path_rates = tuple(
            drop_path_rate * i / (sum(depths) - 1) for i in range(sum(depths))
        )

    def stage_maps(self, x: Tensor, drop_path: Tensor | None = None) -> list[Tensor]:
        """Give the maps after each stage, (N, dims[i], H / 4 / 2^i, W / 4 / 2^i)."""
        return [self._leave(x) for x in self._further(self._enter(x), -1, drop_path)]

    def feature_maps(self, x: Tensor, drop_path: Tensor | None = None) -> list[Tensor]:
        """Give the maps of ``features_only`` as the device likes them; see ``parts/layout.py``."""
        maps = self._normalize_each(self._further(self._enter(x), -1, drop_path))
        return [self._lay_for_device(x) for x in maps]

    def logits_after(self, maps: Tensor, stage: int) -> Tensor:
        """Give the logits of images by their maps after a stage, as :meth:`stage_maps` gives them.

        Args:
            maps: (N, dims[stage], H / 4 / 2^stage, W / 4 / 2^stage).
            stage: 0 to 3.
        """
        x = self._enter(maps)
        if stage + 1 < len(self.depths):
            x = self._further(x, stage, None)[-1]
        return self._classify(self._mean(self._normalize(x)))

    def forward_features(self, x: Tensor, drop_path: Tensor | None = None) -> Tensor:
        """Give the last stage's map, (N, dims[-1], H / 32, W / 32), normalised if norm_pool."""
        return self._leave(self._normalize(self._further(self._enter(x), -1, drop_path)[-1]))

    def forward_head(self, x: Tensor) -> Tensor:
        """Pool a map of :meth:`forward_features` and classify it: (N, num_classes)."""
        return self._classify(x.mean((2, 3)))

    def _normalize(self, x: Tensor) -> Tensor:
        return self.norm(x) if self.head_order == NORM_POOL else x

    def _classify(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x) if self.head_order == POOL_NORM else x)

    def _enter(self, x: Tensor) -> Tensor:
        return from_channels_first(x)

    def _leave(self, x: Tensor) -> Tensor:
        return to_channels_first(x)

    def _lay_for_device(self, x: Tensor) -> Tensor:
        return x

    def _mean(self, x: Tensor) -> Tensor:
        return spatial_mean(x)

    def _normalize_each(self, maps: list[Tensor]) -> list[Tensor]:
        """The maps of ``out_indices`` out of all four, each through its own norm."""
        return [norm(maps[i]) for i, norm in zip(self.out_indices, self.feature_norms)]

    def _new_head(self, num_classes: int) -> nn.Cell:
        return nn.Dense(self.num_features, num_classes) if num_classes > 0 else nn.Identity()

    def _through(
        self, blocks: nn.CellList, x: Tensor, stage: int, drop_path: Tensor | None
    ) -> Tensor:
        """A stage's blocks, each with its scales of ``drop_path``."""
        for number, block in enumerate(blocks):
            scales = None if drop_path is None else drop_path[sum(self.depths[:stage]) + number]
            x = block(x, scales)
        return x

    def _further(self, x: Tensor, stage: int, drop_path: Tensor | None) -> list[Tensor]:
        """The maps of the stages behind ``stage``, whose map is ``x``; before stage 0, images."""
        maps = []
        for index in range(stage + 1, len(self.depths)):
            x = self._stage(x, index, drop_path)
            maps.append(x)
        return maps

    def in_head(self, parameter_name: str) -> bool:
        """Whether a parameter is trained where the backbone is frozen."""
        return parameter_name.startswith("head.")

    def recompute_blocks(self) -> None:
        """Have training compute the maps in blocks anew for the backward pass, not keep them."""
        for stage in range(len(self.depths)):
            for block in self.cells_of(stage)[-1]:
                block.recompute()

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the head by a new one, initialised, for ``num_classes`` classes (0: none)."""
        self.num_classes = num_classes
        self.classes, self.for_people = (), False
        self.head = self._new_head(num_classes)
        for _, cell in self.head.cells_and_names():
            if isinstance(cell, nn.Dense):
                initialize_linear(cell)
        self.compile_cache.clear()  # the graphs compiled so far have the old head

    @property
    def id2label(self) -> dict[int, str]:
        """The name of each class, LABEL_<number> for one without."""
        return dict(enumerate(name_classes(self.classes, self.num_classes)))

    @property
    def label2id(self) -> dict[str, int]:
        """The number of each class by its name; the last one of several with the same name."""
        return {label: number for number, label in self.id2label.items()}

    def construct(
        self,
        x: Tensor,
        drop_path: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool = False,
    ) -> Tensor | tuple:
        """Give logits; stage maps with ``features_only``; or as Hugging Face, if asked to.

        Args:
            x: images.
            drop_path: (sum(depths), 2, N), the stochastic depth scales of a training step (see
                :class:`DropPath`); without it they are drawn here.
            labels: (N,), number of each image's class; gives the fields of ClassifierOutput.
            output_hidden_states: give them too; a constant in a graph.

        Raises:
            ValueError: labels or hidden states are asked of ``features_only``, or labels are no
                integers.
        """
        maps = self._further(self._enter(x), -1, drop_path)
        if self.features_only:
            if labels is not None or output_hidden_states:
                raise ValueError("labels, output_hidden_states: found features_only, no classifier")
            return tuple(self._leave(x) for x in self._normalize_each(maps))
        logits = self._classify(self._mean(self._normalize(maps[-1])))
        if labels is None and not output_hidden_states:
            return logits
        loss = None if labels is None else cross_entropy(logits, labels)
        hidden_states = tuple(self._leave(x) for x in maps) if output_hidden_states else None
        return loss, logits, hidden_states

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """As :meth:`construct`; what is a bare tuple in a graph has its names out here.

        Raises:
            ValueError: as construct, or a label is not a number of a class.
        """
        labels = options.get("labels", inputs[2] if len(inputs) > 2 else None)
        if labels is not None:
            check_labels(labels, self.num_classes)
        output = super().__call__(*inputs, **options)
        named = isinstance(output, tuple) and not self.features_only
        return ClassifierOutput(*output) if named else output


def initialize_linear(cell: nn.Conv2d | nn.Dense) -> None:
    """Draw a weight from a normal distribution of deviation 0.02; the bias, if any, is 0."""
    # The official trunc_normal_(std=0.02) cuts at +-2, a hundred standard deviations out.
    initialize(cell.weight, Normal(0.02))
    if cell.has_bias:
        initialize(cell.bias, Zero())


def initialize(parameter: Parameter, init: Initializer) -> None:
    """Draw a parameter's value."""
    parameter.set_data(initializer(init, parameter.shape, parameter.dtype))
