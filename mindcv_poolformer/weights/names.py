"""What the parameters of a PoolFormer, hybrid or MetaFormer are called in everybody's checkpoints.

Every naming tells for each of our names what it is there, so a conversion is a rename. Sources:
sail-sg/poolformer; sail-sg/metaformer; timm's ``metaformer.py``; transformers'
``modeling_poolformer.py``; MMPretrain's ``backbones/poolformer.py``. Segmentation models and
detectors are a backbone, a neck and heads; MMSegmentation 0.19 and MMDetection 2.19 name these as
here, but for the norms' leaves.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from ..models.dense.retinanet import RATIOS, SCALES
from ..models.variants import FAMILIES


@dataclass(frozen=True)
class Layout:
    """Where the parts of a network lie, in our names.

    Args:
        stem: weight of the first convolution.
        stages: what holds the blocks of each stage, by number.
        signs: parameters by which the network, and the naming, are recognised.
        backbone: of a segmentation model or detector, the layout of its backbone.
        classifier: of these, the parameters that have rows for each class.
        rows: of the first of them, how many for a class.
    """

    stem: str
    stages: tuple[str, ...]
    signs: tuple[str, ...]
    backbone: Layout | None = None
    classifier: tuple[str, ...] = ()
    rows: int = 1


def layout_of_family(family: str | None) -> Layout:
    """Give the layout of PoolFormer, None, or of a family."""
    if family is None:
        return POOLFORMER
    parts = FAMILIES[family]
    if not parts.hybrid:
        return METAFORMER
    return POOLFORMER if parts.position is None else POSITIONED[parts.position]


POOLFORMER = Layout(
    stem="patch_embed.proj.weight",
    stages=("network.0", "network.2", "network.4", "network.6"),
    signs=("network.0.0.norm1.gamma", "network.6.0.mlp.fc1.bias"),
)
# Of hybrids, by the stage before which they have a position embedding.
POSITIONED = {
    family.position: Layout(
        stem=POOLFORMER.stem,
        stages=tuple(f"network.{number}" for number in family.stage_numbers),
        signs=("network.0.0.norm1.gamma", f"network.{2 * family.position}.pos_embed"),
    )
    for family in FAMILIES.values()
    if family.position is not None
}
METAFORMER = Layout(
    stem="downsample_layers.0.conv.weight",
    stages=("stages.0", "stages.1", "stages.2", "stages.3"),
    signs=("stages.0.0.norm1.gamma", "downsample_layers.0.post_norm.gamma"),
)

# The last layer, which has a row for each class: of a linear head, and of an MLP head.
LINEAR_CLASSIFIER = ("head.weight", "head.bias")
MLP_CLASSIFIER = ("head.fc2.weight", "head.fc2.bias")
NORM = ("norm.gamma", "norm.beta")  # before the head

BACKBONE = "backbone."  # what the names in the backbone of a model of dense prediction begin with


def _on_backbones(*layers: str, rows: int = 1) -> tuple[Layout, ...]:
    """On each backbone that takes images of any size; the layers have rows for each class."""
    return tuple(
        Layout(
            stem=BACKBONE + backbone.stem,
            stages=tuple(BACKBONE + stage for stage in backbone.stages),
            signs=(*(BACKBONE + sign for sign in backbone.signs), f"{layers[0]}.weight"),
            backbone=backbone,
            classifier=tuple(f"{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")),
            rows=rows,
        )
        for backbone in (POOLFORMER, METAFORMER)
    )


SEGMENTER_LAYOUTS = _on_backbones("decode_head.conv_seg")
RETINANET_LAYOUTS = _on_backbones("bbox_head.retina_cls", rows=len(RATIOS) * len(SCALES))
MASK_RCNN_LAYOUTS = _on_backbones(
    "roi_head.mask_head.conv_logits", "roi_head.bbox_head.fc_cls", "roi_head.bbox_head.fc_reg"
)
DENSE_LAYOUTS = (*SEGMENTER_LAYOUTS, *RETINANET_LAYOUTS, *MASK_RCNN_LAYOUTS)

_PYTORCH = {"gamma": "weight", "beta": "bias"}
_PYTORCH_BATCH_NORM = {"moving_mean": "running_mean", "moving_variance": "running_var"}


@dataclass(frozen=True, eq=False)
class Naming:
    """How one code base names the parameters of a network.

    What is in no table is called as here.

    Args:
        label: of the code base, for people.
        layout: of the network.
        modules: by our names, whatever a name may begin with: stem, downsamples, stages, head.
        parts: by our names, what follows on the number of a block.
        leaves: the last words of a name.
        flat: linear layers may be 1x1 convolutions there.
        sign: a parameter by which the naming is recognised beside those of the layout.
    """

    label: str
    layout: Layout
    modules: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    leaves: Mapping[str, str] = field(default_factory=_PYTORCH.copy)
    flat: bool = False
    sign: str = ""

    def theirs(self, ours: str) -> str:
        """Give the name there of a parameter, or of a module, by our name."""
        module = next((m for m in self.modules if f"{ours}.".startswith(f"{m}.")), "")
        rest = ours[len(module) :]
        if block := re.fullmatch(r"(\.\d+\.)(.+?)((?:\.\w+)?)", rest):
            number, part, leaf = block.groups()
            rest = f"{number}{self.parts.get(part, part)}{leaf}"
        stem, dot, leaf = f"{self.modules.get(module, module)}{rest}".rpartition(".")
        return f"{stem}{dot}{self.leaves.get(leaf, leaf)}"

    @property
    def stem(self) -> str:
        """The name of the stem's weight."""
        return self.theirs(self.layout.stem)

    def fits(self, names: Collection[str], prefix: str = "") -> bool:
        """Tell whether names are of this naming and this network: by the stem and the signs.

        Args:
            names: of the parameters.
            prefix: what all of them begin with.
        """
        signs = [self.layout.stem, *self.layout.signs, *([self.sign] if self.sign else [])]
        return all(f"{prefix}{self.theirs(sign)}" in names for sign in signs)

    def classifier(self, names: Collection[str]) -> tuple[str, ...]:
        """Give our names of what has rows for each class."""
        if self.layout.backbone:
            return self.layout.classifier
        mlp = any(self.theirs(name) in names for name in MLP_CLASSIFIER)
        return MLP_CLASSIFIER if mlp else LINEAR_CLASSIFIER

    def depths(self, names: Collection[str]) -> tuple[int, ...]:
        """Give the number of blocks in each stage, by the highest block number among the names."""
        depths = []
        for stage in self.layout.stages:
            block = re.compile(re.escape(self.theirs(stage)) + r"\.(\d+)\.")
            numbers = [int(found[1]) for found in map(block.match, names) if found]
            depths.append(max(numbers, default=-1) + 1)
        return tuple(depths)


OFFICIAL = Naming("official (sail-sg)", POOLFORMER)
MINDCV = Naming("MindCV", POOLFORMER, leaves={})
TIMM = Naming(
    "timm",
    POOLFORMER,
    modules={
        "patch_embed.proj": "stem.conv",
        "network.0": "stages.0.blocks",
        "network.1.proj": "stages.1.downsample.conv",
        "network.2": "stages.1.blocks",
        "network.3.proj": "stages.2.downsample.conv",
        "network.4": "stages.2.blocks",
        "network.5.proj": "stages.3.downsample.conv",
        "network.6": "stages.3.blocks",
        "norm": "head.norm",
        "head": "head.fc",
    },
    parts={"layer_scale_1": "layer_scale1.scale", "layer_scale_2": "layer_scale2.scale"},
)
_TRANSFORMERS = {
    "patch_embed.proj": "encoder.patch_embeddings.0.projection",
    "network.0": "encoder.block.0",
    "network.1.proj": "encoder.patch_embeddings.1.projection",
    "network.2": "encoder.block.1",
    "network.3.proj": "encoder.patch_embeddings.2.projection",
    "network.4": "encoder.block.2",
    "network.5.proj": "encoder.patch_embeddings.3.projection",
    "network.6": "encoder.block.3",
}
HUGGINGFACE = Naming(
    "Hugging Face",
    POOLFORMER,
    modules={ours: f"poolformer.{theirs}" for ours, theirs in _TRANSFORMERS.items()}
    | {"head": "classifier"},
    parts={
        "norm1": "before_norm",
        "norm2": "after_norm",
        "mlp.fc1": "output.conv1",
        "mlp.fc2": "output.conv2",
    },
)
# PoolFormerModel, which has neither norm nor classifier behind its stages.
HUGGINGFACE_BASE = replace(
    HUGGINGFACE, label="Hugging Face's base", modules={**_TRANSFORMERS, "head": "classifier"}
)
MMPRETRAIN = Naming(
    "MMPretrain",
    POOLFORMER,
    modules={
        "patch_embed": "backbone.patch_embed",
        "network": "backbone.network",
        "norm": "backbone.norm6",
        "head": "head.fc",
    },
    sign="norm.gamma",
)

OFFICIAL_METAFORMER = Naming("official (sail-sg)", METAFORMER)
OUR_METAFORMER = Naming("MindSpore", METAFORMER, leaves={})
TIMM_METAFORMER = Naming(
    "timm",
    METAFORMER,
    modules={
        "downsample_layers.0.conv": "stem.conv",
        "downsample_layers.0.post_norm": "stem.norm",
        "downsample_layers.1.pre_norm": "stages.1.downsample.norm",
        "downsample_layers.1": "stages.1.downsample",
        "downsample_layers.2.pre_norm": "stages.2.downsample.norm",
        "downsample_layers.2": "stages.2.downsample",
        "downsample_layers.3.pre_norm": "stages.3.downsample.norm",
        "downsample_layers.3": "stages.3.downsample",
        "stages.0": "stages.0.blocks",
        "stages.1": "stages.1.blocks",
        "stages.2": "stages.2.blocks",
        "stages.3": "stages.3.blocks",
        "norm": "head.norm",
        "head": "head.fc",
    },
    flat=True,
)
# Of hybrids with a position embedding; the others have PoolFormer's layout.
HYBRIDS = tuple(
    naming
    for layout in POSITIONED.values()
    for naming in (
        Naming("MindSpore", layout, leaves={}),
        Naming("official (sail-sg)", layout),
    )
)
OPENMMLAB = tuple(
    Naming(
        "MMSegmentation" if layout in SEGMENTER_LAYOUTS else "MMDetection",
        layout,
        leaves=_PYTORCH | _PYTORCH_BATCH_NORM,
    )
    for layout in DENSE_LAYOUTS
)
NAMINGS = (
    # first, since a backbone in a model of dense prediction is one of MMPretrain's too
    *OPENMMLAB,
    *(Naming("MindSpore", layout, leaves={}) for layout in DENSE_LAYOUTS),
    MINDCV,
    OFFICIAL,
    TIMM,
    HUGGINGFACE,
    HUGGINGFACE_BASE,
    MMPRETRAIN,
    OUR_METAFORMER,
    OFFICIAL_METAFORMER,
    TIMM_METAFORMER,
    *HYBRIDS,
)
