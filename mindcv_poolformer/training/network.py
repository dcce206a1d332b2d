"""What a recipe may ask of its network, and what the variant says where the recipe says nothing."""

from __future__ import annotations

from ..config import ModelConfig, Recipe
from ..models import find_variant
from ..models.variants import FAMILIES, check_image_size
from ..runtime.errors import UserError


def check_network(recipe: Recipe) -> None:
    """Refuse a model that is not there or cannot be what the recipe asks for, before the work.

    Raises:
        UserError: names the key.
    """
    model = recipe.model
    check_image_size(model.model, recipe.augmentation.image_resize)
    family = find_variant(model.model).family
    system = recipe.system
    if (
        "auto" in (system.amp_level, system.eval_amp_level)
        and system.device_target == "CPU"
        and family
        and "conv" in FAMILIES[family].token_mixers
    ):
        raise UserError(
            f"amp_level: found auto with model {model.model} on the CPU, expected O0, O2 or O3: "
            "MindSpore 2.10 miscomputes depthwise convolutions so"
        )
    if model.head_drop_rate and not (family and FAMILIES[family].mlp_head):
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
