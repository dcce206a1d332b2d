"""What to tell of logits that are not finite."""

from ..runtime.errors import UserError

DAMAGED = "in float32 the weights are damaged or have diverged; take an earlier checkpoint"
OVERFLOW = "float16 overflows, or the weights are damaged"


def remedy_at(level: str) -> str:
    """What to tell where a network computed them at an AMP level."""
    return DAMAGED if level == "O0" else f"{OVERFLOW}; try --val_amp_level O0"


def check_finite(finite: bool, level: str) -> None:
    """Refuse what a network computed at an AMP level.

    Raises:
        UserError: not all of it is finite.
    """
    if not finite:
        raise UserError(
            "validation: found logits that are not finite, expected finite ones: "
            f"{remedy_at(level)}"
        )
