"""What a recipe may ask of its network, and what the variant says where the recipe says nothing."""

from __future__ import annotations

from collections.abc import Mapping

from ..config import ModelConfig, Recipe
from ..models import find_variant
from ..models.variants import FAMILIES, check_image_size
from ..runtime.errors import UserError


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


def drop_rates(model: ModelConfig) -> dict[str, float]:
    """Give the rates to create the network with: the recipe's, or where null the variant's own."""
    variant = find_variant(model.model)
    rates = {"drop_rate": model.drop_rate}
    for key in ("drop_path_rate", "head_drop_rate"):
        rate = getattr(model, key)
        rates[key] = getattr(variant, key) if rate is None else rate
    if not rates["head_drop_rate"]:
        del rates["head_drop_rate"]  # only a network with an MLP head knows it
    return rates
