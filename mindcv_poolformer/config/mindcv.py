"""MindCV's keys that are none here: what says the same, and what asks for nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .recipe_file import RecipeError

WARMUP_FACTOR = "warmup_factor"
_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")
# What asks for nothing else than what is done here anyway; none: whatever it is.
_IDLE: dict[str, tuple[str, ...]] = {
    "num_samples": ("null", "none"),
    "aug_repeats": ("0", "1"),
    "aug_splits": ("0",),
    "three_augment": _FALSE,
    "num_cycles": ("1",),
    "cycle_decay": ("1.0", "1"),
    "aux_factor": ("0.0", "0"),
    "reduction": ("mean",),
    "resume_opt": _FALSE,
    "enable_modelarts": _FALSE,
}
KEYS = (*_IDLE, "dynamic_loss_scale", WARMUP_FACTOR)


def translated(given: Mapping[str, Any], source: str) -> dict[str, Any]:
    """``given`` without MindCV's keys, but for the warm-up factor, which needs the learning rate.

    Args:
        given: texts by key, from one file or the command line.
        source: where they are from.

    Raises:
        RecipeError: a key asks for what there is not, or for what another key says too.
    """
    ours = {key: value for key, value in given.items() if key not in KEYS}
    for key in (key for key in KEYS if key in given):
        word = "null" if given[key] is None else str(given[key]).lower()
        if key in _IDLE:
            if _IDLE[key] and word not in _IDLE[key]:
                raise RecipeError(
                    f"{key}: found {given[key]!r}, expected {_IDLE[key][0]}: there is nothing else "
                    f"here ({source})"
                )
            continue
        new = "warmup_lr" if key == WARMUP_FACTOR else "loss_scale_type"
        if new in given:
            raise RecipeError(f"{key}: found it with {new}, expected one of them ({source})")
        if key == WARMUP_FACTOR:
            ours[key] = given[key]
        elif word in (*_TRUE, *_FALSE):
            ours[new] = "dynamic" if word in _TRUE else "fixed"
        else:
            raise RecipeError(f"{key}: found {given[key]!r}, expected true or false ({source})")
    if "drop_rate" in ours and ours["drop_rate"] in (None, "null", "None"):
        ours["drop_rate"] = "0"
    return ours
