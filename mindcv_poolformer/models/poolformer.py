"""PoolFormer, with the parameter names of the official code (sail-sg/poolformer).

Norms carry MindSpore's ``gamma`` and ``beta`` for ``weight`` and ``bias``. Importing this module
registers the variants with MindCV, in the place of MindCV's own models of the same names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from mindcv.models.registry import register_model
from mindspore import Parameter, Tensor, nn
from mindspore.common.initializer import HeUniform, Normal, Uniform, Zero, initializer

from .kernels import GroupNorm, from_channels_first, spatial_mean, to_channels_first
from .layers import ConvMlp, LayerNorm, PatchEmbed, PoolFormerBlock
from .outputs import ClassifierOutput, check_labels, cross_entropy, name_classes
from .variants import VARIANTS

__all__ = ["PoolFormer"]

# What stands before the classifier: the official model's GroupNorm and then the mean over H and W,
# or timm's mean and then a LayerNorm. They share parameter names and shapes, but not their logits.
NORM_POOL = "norm_pool"
POOL_NORM = "pool_norm"

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Fills a network with a variant's published weights. The package sets it: models know no files.
load_pretrained: Callable[[PoolFormer, str], None] | None = None

# MindCV's registry reads the configuration of each model from this name.
default_cfgs = {
    name: {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "crop_pct": variant.crop_pct,
        "interpolation": "bicubic",
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }
    for name, variant in VARIANTS.items()
}


class PoolFormer(nn.Cell):
    """PoolFormer (arXiv 2111.11418): images (N, in_channels, H, W) to logits (N, num_classes).

    Any H and W that survive the strides of 4, 2, 2 and 2 will do, not only 224.

    Args:
        depths: blocks in each stage.
        dims: channels of each stage.
        num_classes: size of the classifier; 0 leaves it out and gives pooled features.
        in_channels: channels of the images.
        drop_rate: dropout inside the MLPs.
        drop_path_rate: stochastic depth rate of the last block; it rises linearly from 0.
        layer_scale_init: initial value of the layer scales.
        features_only: give the maps of the stages in ``out_indices`` instead of logits, at strides
            4, 8, 16 and 32, each through its own GroupNorm, for dense prediction.
        head: "norm_pool" as the official code, "pool_norm" as timm, whose weights want it.
        out_indices: the stages, 0 to 3, whose maps ``features_only`` gives.

    Raises:
        ValueError: ``out_indices`` names a stage that is not there, or none; ``head`` is neither.
    """

    def __init__(
        self,
        depths: Sequence[int],
        dims: Sequence[int],
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_scale_init: float = 1e-5,
        features_only: bool = False,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        head: str = NORM_POOL,
    ) -> None:
        super().__init__()
        if head not in (NORM_POOL, POOL_NORM):
            raise ValueError(f"head: found {head!r}, expected {NORM_POOL!r} or {POOL_NORM!r}")
        self.head_order = head
        self.depths = tuple(depths)
        self.num_features = dims[-1]
        self.num_classes = num_classes
        self.classes: tuple[str, ...] = ()  # their names, and how to prepare images, as
        self.preprocessing: dict[str, Any] | None = None  # the weights' metadata tell them
        self.features_only = features_only
        self.drop_path_rates = tuple(
            drop_path_rate * i / (sum(depths) - 1) for i in range(sum(depths))
        )
        self.patch_embed = PatchEmbed(in_channels, dims[0], patch_size=7, stride=4, padding=2)
        rates = iter(self.drop_path_rates)
        network: list[nn.Cell] = []
        for stage, (depth, channels) in enumerate(zip(depths, dims, strict=True)):
            if stage > 0:
                network.append(
                    PatchEmbed(dims[stage - 1], channels, patch_size=3, stride=2, padding=1)
                )
            blocks = [
                PoolFormerBlock(channels, drop_rate, next(rates), layer_scale_init)
                for _ in range(depth)
            ]
            network.append(nn.CellList(blocks))
        self.network = nn.CellList(network)
        if features_only:
            self._add_feature_norms(dims, tuple(out_indices))
        else:
            self.norm = LayerNorm(dims[-1]) if head == POOL_NORM else GroupNorm(dims[-1])
            self.head = _classifier(dims[-1], num_classes)
        self._initialize()

    def _add_feature_norms(self, dims: Sequence[int], out_indices: tuple[int, ...]) -> None:
        if not out_indices or not set(out_indices) <= set(range(len(dims))):
            raise ValueError(f"out_indices: found {out_indices}, expected some of 0, 1, 2, 3")
        self.out_indices = out_indices
        self.feature_info = [
            {"chs": dims[i], "reduction": 4 * 2**i, "name": f"network.{2 * i}"} for i in out_indices
        ]
        for i in out_indices:
            setattr(self, f"norm{2 * i}", GroupNorm(dims[i]))
        self.feature_norms = [getattr(self, f"norm{2 * i}") for i in out_indices]

    def _initialize(self) -> None:
        """Initialise as the official code: MLPs and head normal, strided convs as PyTorch's."""
        for _, cell in self.cells_and_names():
            if isinstance(cell, PatchEmbed):
                bound = 1 / math.sqrt(math.prod(cell.proj.weight.shape[1:]))
                _set(cell.proj.weight, HeUniform(negative_slope=math.sqrt(5)))
                _set(cell.proj.bias, Uniform(bound))
            elif isinstance(cell, ConvMlp):
                for conv in (cell.fc1, cell.fc2):
                    _initialize_linear(conv)
            elif isinstance(cell, nn.Dense):
                _initialize_linear(cell)

    def layer_of(self, parameter_name: str) -> int:
        """Tell how deep a parameter lies: the stem 0, each block one more, norm and head on top.

        A downsample counts with the block behind it. For layer-wise learning rates (BEiT, arXiv
        2106.08254, appendix).
        """
        part = parameter_name.split(".")
        if part[0] == "patch_embed":
            return 0
        if part[0] != "network":
            return sum(self.depths) + 1
        place = int(part[1])  # stage, downsample, stage, ...
        before = sum(self.depths[: (place + 1) // 2])
        return before + 1 + (int(part[2]) if place % 2 == 0 else 0)

    def stages(self, x: Tensor, drop_path: Tensor | None = None) -> list[Tensor]:
        """Give the maps after each stage, (N, dims[i], H / 4 / 2^i, W / 4 / 2^i)."""
        return [to_channels_first(x) for x in self._stages(x, drop_path)]

    def _stages(self, x: Tensor, drop_path: Tensor | None) -> list[Tensor]:
        """As :meth:`stages`, the maps as the device likes them."""
        x = self.patch_embed(from_channels_first(x))
        maps = []
        block_index = 0
        for index, part in enumerate(self.network):
            if index % 2 == 1:
                x = part(x)
            else:
                for block in part:
                    scales = None if drop_path is None else drop_path[block_index]
                    x = block(x, scales)
                    block_index += 1
                maps.append(x)
        return maps

    def forward_features(self, x: Tensor, drop_path: Tensor | None = None) -> Tensor:
        """Give the last stage's map, (N, dims[-1], H / 32, W / 32), normalised if norm_pool."""
        return to_channels_first(self._normalize(self._stages(x, drop_path)[-1]))

    def _normalize(self, x: Tensor) -> Tensor:
        return x if self.head_order == POOL_NORM else self.norm(x)

    def forward_head(self, x: Tensor) -> Tensor:
        """Pool a map of :meth:`forward_features` and classify it: (N, num_classes)."""
        return self._classify(x.mean((2, 3)))

    def _classify(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x) if self.head_order == POOL_NORM else x)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the head by a new one, initialised, for ``num_classes`` classes (0: none)."""
        self.num_classes = num_classes
        self.classes = ()
        self.head = _classifier(self.num_features, num_classes)
        if num_classes > 0:
            _initialize_linear(self.head)
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
        maps = self._stages(x, drop_path)
        if self.features_only:
            if labels is not None or output_hidden_states:
                raise ValueError("labels, output_hidden_states: found features_only, no classifier")
            norms = zip(self.out_indices, self.feature_norms)
            return tuple(to_channels_first(norm(maps[i])) for i, norm in norms)
        logits = self._classify(spatial_mean(self._normalize(maps[-1])))
        if labels is None and not output_hidden_states:
            return logits
        loss = None if labels is None else cross_entropy(logits, labels)
        hidden_states = tuple(to_channels_first(x) for x in maps) if output_hidden_states else None
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


def _classifier(channels: int, num_classes: int) -> nn.Cell:
    return nn.Dense(channels, num_classes) if num_classes > 0 else nn.Identity()


def _initialize_linear(cell: nn.Conv2d | nn.Dense) -> None:
    # The official trunc_normal_(std=0.02) cuts at +-2, a hundred standard deviations out.
    _set(cell.weight, Normal(0.02))
    _set(cell.bias, Zero())


def _set(parameter: Parameter, init: object) -> None:
    parameter.set_data(initializer(init, parameter.shape, parameter.dtype))


def _entry_point(name: str) -> Callable[..., PoolFormer]:
    variant = VARIANTS[name]

    def create(
        pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs: object
    ) -> PoolFormer:
        settings = {"layer_scale_init": variant.layer_scale_init, **kwargs}
        network = PoolFormer(
            variant.depths,
            variant.dims,
            num_classes=num_classes,
            in_channels=in_channels,
            **settings,
        )
        if pretrained:
            load_pretrained(network, name)
        return network

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"Give a {name}; the keywords are those of :class:`PoolFormer`."
    return create


for _name in VARIANTS:
    globals()[_name] = register_model(_entry_point(_name))
