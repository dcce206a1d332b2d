"""Checkpoints into networks, strictly."""

from .load import TRAINING_PREFIX, fill, load_weights, read_checkpoint

__all__ = ["TRAINING_PREFIX", "fill", "load_weights", "read_checkpoint"]
