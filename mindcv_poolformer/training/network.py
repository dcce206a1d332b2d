"""The network to train, with the weights that it starts from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import mindspore as ms
from mindspore import nn

from ..config import Recipe
from ..models import MaskRCNN, RetinaNet, SemanticFPN, StagedClassifier
from ..models.parts.mixers import choose_attention
from ..runtime.collectives import assert_identical
from ..runtime.launch import World
from ..weights import ModelWeights, find_weights, start_from


def arrange_blocks(network: nn.Cell, recipe: Recipe) -> None:
    """Have attention, and the maps in blocks, computed as a recipe asks for training."""
    choose_attention(network, recipe.system.flash_attention)
    if recipe.system.recompute:
        network.recompute_blocks()


Model = TypeVar("Model", StagedClassifier, SemanticFPN, RetinaNet | MaskRCNN)


def build_network(
    recipe: Recipe,
    create: Callable[[ModelWeights | None], Model],
    classes: Sequence[str],
    world: World,
) -> Model:
    """Give the network to train, in training mode, with equal weights on every rank.

    Args:
        recipe: tells where the weights start.
        create: gives the network, with weights as drawn, that others' may be loaded into.
        classes: names of the data's classes.
        world: the ranks; the main one says which weights were taken.
    """
    model = recipe.model
    weights = find_weights(model) if model.pretrained or model.ckpt_path else None
    ms.set_seed(recipe.system.seed)
    network = create(weights)
    if weights:
        said = start_from(network, weights, classes, any_channels=model.pretrained)
        if world.is_main:
            print(said)
    assert_identical(network, world.size)
    ms.set_seed(recipe.system.seed + world.rank)  # dropout: other masks on every rank
    return network.set_train()
