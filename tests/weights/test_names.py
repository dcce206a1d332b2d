from __future__ import annotations

import pytest
from hybrids import HYBRIDS, hybrid_shapes
from official import SHAPES, TIMM_OUTPUTS

from mindcv_poolformer.models import (
    VARIANTS,
    Hybrid,
    MaskRCNN,
    MetaFormer,
    PoolFormer,
    RetinaNet,
    SemanticFPN,
)
from mindcv_poolformer.weights.names import (
    HUGGINGFACE,
    METAFORMER,
    MINDCV,
    MMPRETRAIN,
    NAMINGS,
    OFFICIAL,
    OFFICIAL_METAFORMER,
    OPENMMLAB,
    OUR_METAFORMER,
    POOLFORMER,
    POSITIONED,
    RETINANET_LAYOUTS,
    SEGMENTER_LAYOUTS,
    TIMM,
    TIMM_METAFORMER,
    Naming,
    layout_of_family,
)

# The same parameter in each naming, written down from the four code bases.
SAME = [
    (
        "patch_embed.proj.weight",
        "patch_embed.proj.weight",
        "stem.conv.weight",
        "poolformer.encoder.patch_embeddings.0.projection.weight",
    ),
    (
        "network.3.proj.bias",
        "network.3.proj.bias",
        "stages.2.downsample.conv.bias",
        "poolformer.encoder.patch_embeddings.2.projection.bias",
    ),
    (
        "network.0.1.norm1.gamma",
        "network.0.1.norm1.weight",
        "stages.0.blocks.1.norm1.weight",
        "poolformer.encoder.block.0.1.before_norm.weight",
    ),
    (
        "network.4.5.norm2.beta",
        "network.4.5.norm2.bias",
        "stages.2.blocks.5.norm2.bias",
        "poolformer.encoder.block.2.5.after_norm.bias",
    ),
    (
        "network.2.0.mlp.fc1.weight",
        "network.2.0.mlp.fc1.weight",
        "stages.1.blocks.0.mlp.fc1.weight",
        "poolformer.encoder.block.1.0.output.conv1.weight",
    ),
    (
        "network.6.1.mlp.fc2.bias",
        "network.6.1.mlp.fc2.bias",
        "stages.3.blocks.1.mlp.fc2.bias",
        "poolformer.encoder.block.3.1.output.conv2.bias",
    ),
    (
        "network.6.1.layer_scale_1",
        "network.6.1.layer_scale_1",
        "stages.3.blocks.1.layer_scale1.scale",
        "poolformer.encoder.block.3.1.layer_scale_1",
    ),
    (
        "network.0.0.layer_scale_2",
        "network.0.0.layer_scale_2",
        "stages.0.blocks.0.layer_scale2.scale",
        "poolformer.encoder.block.0.0.layer_scale_2",
    ),
    ("norm.gamma", "norm.weight", "head.norm.weight", "norm.weight"),
    ("head.bias", "head.bias", "head.fc.bias", "classifier.bias"),
]


# Ours, which the official ones are but for norms, and timm's.
SAME_METAFORMER = [
    ("downsample_layers.0.conv.weight", "stem.conv.weight"),
    ("downsample_layers.0.post_norm.gamma", "stem.norm.weight"),
    ("downsample_layers.2.pre_norm.gamma", "stages.2.downsample.norm.weight"),
    ("downsample_layers.3.conv.bias", "stages.3.downsample.conv.bias"),
    ("stages.0.1.norm1.gamma", "stages.0.blocks.1.norm1.weight"),
    ("stages.1.10.token_mixer.act1.bias", "stages.1.blocks.10.token_mixer.act1.bias"),
    ("stages.2.17.token_mixer.qkv.weight", "stages.2.blocks.17.token_mixer.qkv.weight"),
    ("stages.3.2.res_scale2.scale", "stages.3.blocks.2.res_scale2.scale"),
    ("stages.2.0.mlp.act.scale", "stages.2.blocks.0.mlp.act.scale"),
    ("norm.beta", "head.norm.bias"),
    ("head.weight", "head.fc.weight"),
    ("head.fc1.bias", "head.fc.fc1.bias"),
    ("head.norm.gamma", "head.fc.norm.weight"),
    ("head.fc2.weight", "head.fc.fc2.weight"),
]


def our_names(variant: str) -> list[str]:
    """Those of a narrow network of a variant's depths."""
    facts = VARIANTS[variant]
    if facts.family is None:
        network = PoolFormer(facts.depths, (4, 8, 8, 16))
    else:
        cell = MetaFormer if facts.is_metaformer else Hybrid
        network = cell(facts.depths, (32, 32, 32, 32), facts.family, num_classes=2)
    return [parameter.name for parameter in network.get_parameters()]


@pytest.mark.parametrize("same", SAME, ids=lambda same: same[0])
def test_every_naming_means_the_same_parameter(same: tuple[str, ...]) -> None:
    ours, official, timm, huggingface = same
    assert MINDCV.theirs(ours) == ours
    assert OFFICIAL.theirs(ours) == official
    assert TIMM.theirs(ours) == timm
    assert HUGGINGFACE.theirs(ours) == huggingface


@pytest.mark.parametrize("same", SAME_METAFORMER, ids=lambda same: same[0])
def test_every_naming_of_a_metaformer(same: tuple[str, str]) -> None:
    ours, timm = same
    assert OUR_METAFORMER.theirs(ours) == ours
    official = ours.replace(".gamma", ".weight").replace(".beta", ".bias")
    assert OFFICIAL_METAFORMER.theirs(ours) == official
    assert TIMM_METAFORMER.theirs(ours) == timm


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name in SHAPES])
def test_official_names(variant: str) -> None:
    naming = OFFICIAL_METAFORMER if VARIANTS[variant].family else OFFICIAL
    assert set(map(naming.theirs, our_names(variant))) == set(SHAPES[variant])


@pytest.mark.parametrize("variant", HYBRIDS)
def test_official_names_of_hybrids(variant: str) -> None:
    layout = layout_of_family(VARIANTS[variant].family)
    (naming,) = (n for n in NAMINGS if n.layout is layout and n.label == OFFICIAL.label)
    assert set(map(naming.theirs, our_names(variant))) == set(hybrid_shapes(variant))


@pytest.mark.parametrize("variant", [n for n in VARIANTS if f"{n}/names" in TIMM_OUTPUTS])
def test_timm_names(variant: str) -> None:
    naming = TIMM_METAFORMER if VARIANTS[variant].family else TIMM
    assert set(map(naming.theirs, our_names(variant))) == set(TIMM_OUTPUTS[f"{variant}/names"])


@pytest.mark.parametrize("naming", NAMINGS, ids=lambda naming: naming.label)
def test_a_naming_knows_its_own_and_counts_blocks(naming: Naming) -> None:
    depths = (1, 12, 3, 2)
    layout = naming.layout.backbone or naming.layout
    maps = {"features_only": True} if naming.layout.backbone else {}
    if naming.layout in RETINANET_LAYOUTS:
        maps["out_indices"] = (1, 2, 3)
    if layout is POOLFORMER:
        network = PoolFormer(depths, (4, 8, 8, 16), **maps)
    elif naming.layout in POSITIONED.values():
        family = "metaformer_ppaa" if naming.layout is POSITIONED[2] else "metaformer_pppa"
        network = Hybrid(depths, (32, 32, 32, 32), family, num_classes=2)
    else:
        network = MetaFormer(depths, (32, 32, 32, 32), "caformer", num_classes=2, **maps)
    if naming.layout in SEGMENTER_LAYOUTS:
        network = SemanticFPN(network, num_classes=2, neck_channels=4, head_channels=4)
    elif naming.layout.backbone:
        cell = RetinaNet if naming.layout in RETINANET_LAYOUTS else MaskRCNN
        network = cell(network, num_classes=2, channels=4)
    names = [naming.theirs(parameter.name) for parameter in network.get_parameters()]
    assert len(set(names)) == len(names)
    fitting = [other for other in NAMINGS if other.fits(names)]
    assert fitting[0] is naming
    assert fitting[1:] == ([MMPRETRAIN] if naming in OPENMMLAB and layout is POOLFORMER else [])
    assert naming.depths(names) == depths
    last = naming.classifier(names)
    assert {naming.theirs(name) for name in last} <= set(names)
    assert naming.theirs(last[0]).endswith("fc2.weight") == (naming.layout is METAFORMER)
