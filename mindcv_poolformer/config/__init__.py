"""The typed recipe: one set of keys, types, bounds and choices for YAML files and flags.

Keys are MindCV's flat vocabulary, so a recipe written for MindCV loads here and means the same.
"""

from mindcv_poolformer.config.parse import parse_recipe
from mindcv_poolformer.config.recipe import Recipe
from mindcv_poolformer.config.sections import (
    AugmentationConfig,
    CheckpointingConfig,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    SystemConfig,
)

__all__ = [
    "AugmentationConfig",
    "CheckpointingConfig",
    "DataConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Recipe",
    "ScheduleConfig",
    "SystemConfig",
    "parse_recipe",
]
