"""What the scripts do differently by task: data, network with its loss, evaluator, checkpoints."""

from __future__ import annotations

from ..config import Recipe
from ..evaluation import classification
from ..evaluation.segmentation import SegmentationEvaluator
from .classification import Classification
from .segmentation import Segmentation

Evaluator = classification.Evaluator | SegmentationEvaluator

__all__ = ["Classification", "Evaluator", "Segmentation", "task_of"]


def task_of(recipe: Recipe) -> type[Classification] | type[Segmentation]:
    """Give the task that a recipe names."""
    return Segmentation if recipe.model.task == "segmentation" else Classification
