"""The network that a recipe asks for, and what it may ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mindcv
import mindspore as ms

from ..config import ModelConfig, Recipe
from ..models import StagedClassifier, find_variant
from ..models.parts.mixers import choose_attention
from ..models.variants import FAMILIES, check_image_size
from ..runtime.collectives import assert_identical
from ..runtime.errors import UserError
from ..runtime.launch import World
from ..weights import find_weights, start_from


def check_network(recipe: Recipe, amp_levels: Mapping[str, str | None]) -> None:
    """Refuse a model that is not there or cannot be what the recipe asks for, before the work.

    Args:
        recipe: what is asked for.
        amp_levels: at which it will run, by their keys.

    Raises:
        UserError: names the key.
    """
    model = recipe.model
    check_image_size(model.model, recipe.augmentation.image_resize)
    name = find_variant(model.model).family
    family = FAMILIES[name] if name else None
    convolves = family is not None and "conv" in family.token_mixers
    for key, level in amp_levels.items():
        if level == "auto" and convolves and recipe.system.device_target == "CPU":
            raise UserError(
                f"{key}: found auto with model {model.model} on the CPU, expected O0, O2 or O3: "
                "MindSpore 2.10 miscomputes depthwise convolutions so"
            )
    if model.head_drop_rate and not (family and family.mlp_head):
        raise UserError(
            f"head_drop_rate: found {model.head_drop_rate} with model {model.model}, expected null "
            "or 0: it has no MLP head"
        )


def build_network(
    recipe: Recipe, classes: Sequence[str], num_classes: int, world: World
) -> StagedClassifier:
    """Give the network to train, in training mode, with equal weights on every rank.

    Args:
        recipe: tells where the weights start.
        classes: names of the data's classes.
        num_classes: size of the classifier.
        world: the ranks; the main one says which weights were taken.
    """
    model = recipe.model
    weights = find_weights(model) if model.pretrained or model.ckpt_path else None
    ms.set_seed(recipe.system.seed)
    network = create_network(recipe, num_classes, weights.head if weights else None)
    if weights:
        said = start_from(network, weights, classes, any_channels=model.pretrained)
        if world.is_main:
            print(said)
    assert_identical(network, world.size)
    ms.set_seed(recipe.system.seed + world.rank)  # dropout: other masks on every rank
    return network.set_train()


def create_network(recipe: Recipe, num_classes: int, head: str | None = None) -> StagedClassifier:
    """Give the network to train, with weights as drawn.

    Args:
        recipe: its model section counts, and how blocks and attention are to compute.
        num_classes: size of the classifier.
        head: order of norm and pooling, None for the family's own.
    """
    model = recipe.model
    network = mindcv.create_model(
        model.model,
        num_classes=num_classes,
        in_channels=model.in_channels,
        **_drop_rates(model),
        **({"head": head} if head else {}),
    )
    choose_attention(network, recipe.system.flash_attention)
    if recipe.system.recompute:
        network.recompute_blocks()
    return network


def _drop_rates(model: ModelConfig) -> dict[str, float]:
    """Give the rates to create the network with: the recipe's, or where null the variant's own."""
    variant = find_variant(model.model)
    rates = {"drop_rate": model.drop_rate}
    for key in ("drop_path_rate", "head_drop_rate"):
        rate = getattr(model, key)
        rates[key] = getattr(variant, key) if rate is None else rate
    if not rates["head_drop_rate"]:
        del rates["head_drop_rate"]  # only a network with an MLP head knows it
    return rates
