"""What to tell of logits that are not finite."""

DAMAGED = "in float32 the weights are damaged or have diverged; take an earlier checkpoint"
OVERFLOW = "float16 overflows, or the weights are damaged"
