"""What to tell of logits that are not finite."""

DAMAGED = "in float32 the weights are damaged or have diverged; take an earlier checkpoint"
OVERFLOW = "float16 overflows, or the weights are damaged"


def remedy_at(level: str) -> str:
    """What to tell where a network computed them at an AMP level."""
    return DAMAGED if level == "O0" else f"{OVERFLOW}; try --val_amp_level O0"
