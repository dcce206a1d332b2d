"""The AMP levels that a model can run at."""

from __future__ import annotations

from collections.abc import Mapping

from ..config import Recipe
from ..models.variants import FAMILIES, Variant
from ..runtime.errors import UserError


def check_levels(recipe: Recipe, backbone: Variant, levels: Mapping[str, str | None]) -> None:
    """Refuse what would be computed wrongly.

    Args:
        recipe: names the model and the device.
        backbone: of the model, or the model itself.
        levels: at which it will run, by their keys.

    Raises:
        UserError: names the key.
    """
    family = FAMILIES[backbone.family] if backbone.family else None
    convolves = family is not None and "conv" in family.token_mixers
    for key, level in levels.items():
        if level == "auto" and convolves and recipe.system.device_target == "CPU":
            raise UserError(
                f"{key}: found auto with model {recipe.model.model} on the CPU, expected O0, O2 or "
                "O3: MindSpore 2.10 miscomputes depthwise convolutions so"
            )
