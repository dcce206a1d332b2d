from __future__ import annotations

import pytest
from official import SHAPES, TIMM_OUTPUTS

from mindcv_poolformer.models import VARIANTS
from mindcv_poolformer.weights.names import HUGGINGFACE, MINDCV, NAMINGS, OFFICIAL, TIMM, Naming

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


@pytest.mark.parametrize("same", SAME, ids=lambda same: same[0])
def test_every_naming_means_the_same_parameter(same: tuple[str, ...]) -> None:
    depths = VARIANTS["poolformer_s12"].depths
    places = [
        naming.names(depths).index(name)
        for naming, name in zip((MINDCV, OFFICIAL, TIMM, HUGGINGFACE), same, strict=True)
    ]
    assert len(set(places)) == 1


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name in SHAPES])
def test_official_names(variant: str) -> None:
    assert set(OFFICIAL.names(VARIANTS[variant].depths)) == set(SHAPES[variant])


@pytest.mark.parametrize("variant", VARIANTS)
def test_timm_names(variant: str) -> None:
    assert set(TIMM.names(VARIANTS[variant].depths)) == set(TIMM_OUTPUTS[f"{variant}/names"])


@pytest.mark.parametrize("naming", NAMINGS, ids=lambda naming: naming.label)
def test_a_naming_knows_its_own_and_counts_blocks(naming: Naming) -> None:
    depths = (1, 12, 3, 2)
    names = naming.names(depths)
    assert len(set(names)) == len(names)
    assert [other for other in NAMINGS if other.fits(names)] == [naming]
    assert naming.depths(names) == depths
