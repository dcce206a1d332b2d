"""The typed recipe: one set of keys, types, bounds and choices for YAML files and flags.

Keys are MindCV's flat vocabulary, so a recipe written for MindCV loads here and means the same.
"""

from . import shown
from .bounds import GraphSize, PathText
from .dense import DenseConfig
from .detection import DetectionConfig
from .parse import parse_recipe
from .recipe import Recipe
from .sections import AugmentationConfig, DataConfig, ModelConfig, SystemConfig
from .segmentation import SegmentationConfig
from .training import CheckpointingConfig, LossConfig, OptimizerConfig, ScheduleConfig

__all__ = [
    "AugmentationConfig",
    "CheckpointingConfig",
    "DataConfig",
    "DenseConfig",
    "DetectionConfig",
    "GraphSize",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PathText",
    "Recipe",
    "ScheduleConfig",
    "SegmentationConfig",
    "SystemConfig",
    "parse_recipe",
    "shown",
]
