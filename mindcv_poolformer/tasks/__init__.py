"""What the scripts do differently by task: data, network with its loss, evaluator, checkpoints."""

from __future__ import annotations

from ..config import Recipe
from ..evaluation import classification
from ..evaluation.detection import DetectionEvaluator
from ..evaluation.segmentation import SegmentationEvaluator
from .classification import Classification
from .detection import Detection
from .segmentation import Segmentation

Evaluator = classification.Evaluator | SegmentationEvaluator | DetectionEvaluator

__all__ = ["Classification", "Detection", "Evaluator", "Segmentation", "task_of"]


def task_of(recipe: Recipe) -> type[Classification] | type[Segmentation] | type[Detection]:
    """Give the task that a recipe names."""
    match recipe.model.task:
        case "segmentation":
            return Segmentation
        case "detection":
            return Detection
        case _:
            return Classification
