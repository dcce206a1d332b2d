"""Validation of segmentation models: mIoU over every scene once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import mindcv
import numpy as np
from mindspore import Tensor

from ..config import Recipe
from ..data.order import Shard
from ..data.segmentation import splits
from ..data.segmentation.fitting import IMG_SCALE, EvalTransform
from ..data.segmentation.loader import evaluation_scenes
from ..data.segmentation.palette import palette_of
from ..data.segmentation.scenes import SceneFolder
from ..evaluation.segmentation import (
    SegmentationEvaluation,
    SegmentationEvaluator,
    evaluate_scenes,
)
from ..export.segmenter import load_segmenter_bundle
from ..models import SemanticFPN
from ..models.deploy import to_deploy
from ..models.parts.mixers import choose_attention
from ..report.outcome import Outcome
from ..report.scenes import SceneReport
from ..runtime.counted import counted
from ..runtime.launch import World
from ..weights import ModelWeights, find_weights, load_weights
from .class_table import class_table
from .picture_bundles import bundle_asked_for, facts_of
from .validation import ValidationOptions


def validate(recipe: Recipe, options: ValidationOptions, world: World) -> Outcome:
    """Evaluate at one AMP level, or at two on the same scenes."""
    weights = find_weights(recipe.model, Path(recipe.checkpointing.ckpt_save_dir) / "best.ckpt")
    scenes = splits.validation_scenes(recipe, weights.classes or None, weights.num_classes)
    level, other_level = recipe.system.eval_amp_level, options.compare_amp_level
    evaluator = evaluator_of(recipe, restored(recipe, weights), level, scenes, world)
    if options.deploy:
        evaluator.use(to_deploy(evaluator.network))
    other = None
    if other_level:
        other = evaluator_of(recipe, restored(recipe, weights), other_level, scenes, world)

    form = "deploy" if options.deploy else "plain"
    facts: dict[str, Any] = {
        "model": recipe.model.model,
        "checkpoint": str(weights.path),
        "data": str(scenes.root),
        "ranks": world.size,
        "amp_level": level,
        "form": form,
    }
    with _report(options, scenes, world) as report:
        results, alike = evaluator.evaluate_beside(other, report.see if report else None)
        facts |= results[0].scores
        if other_level:
            facts["compared"] = {"amp_level": other_level, **results[1].scores}
            facts["agreement"] = alike
        if report:
            report.write(results[0].found, facts)

    deployed = ", deploy form" if options.deploy else ""
    notes = [*scenes.notes, *([weights.note] if weights.note else [])]
    lines = [
        *notes,
        f"{weights.path} on {counted(len(scenes), 'scene')} of {scenes.root}{deployed}",
    ]
    lines.append(describe(level, results[0]))
    if other_level:
        lines.append(describe(other_level, results[1]))
        lines.append(f"{level} and {other_level} agree on {alike:.2f} % of the pixels")
    facts["classes"] = per_class(scenes.classes, results[0])
    return Outcome([*lines, *table(scenes.classes, results[0])], facts)


def restored(recipe: Recipe, weights: ModelWeights) -> SemanticFPN:
    """Give the network of weights, whose neck and head are as wide as these have them.

    Raises:
        UserError: as :func:`load_weights`.
    """
    network = mindcv.create_model(recipe.model.model, **weights.settings)
    choose_attention(network, recipe.system.flash_attention)
    load_weights(network, weights)
    return network


def evaluator_of(
    recipe: Recipe, network: SemanticFPN, level: str, scenes: SceneFolder, world: World
) -> SegmentationEvaluator:
    """Give what evaluates a network, at an AMP level, on scenes."""
    dataset = evaluation_scenes(
        scenes,
        eval_transform(recipe),
        shard=Shard(world.rank, world.size),
        num_parallel_workers=recipe.system.num_parallel_workers,
    )
    return SegmentationEvaluator(network, level, dataset, world.size, world.is_main)


def eval_transform(recipe: Recipe) -> EvalTransform:
    """What happens to each scene in validation."""
    dense, augmentation = recipe.dense, recipe.augmentation
    return EvalTransform(
        dense.img_scale or IMG_SCALE, dense.size_divisor, augmentation.mean, augmentation.std
    )


def describe(level: str, result: SegmentationEvaluation) -> str:
    """One line for people."""
    return f"{level:>4}: {result} ({result.images_per_second:.1f} images/s)"


def table(classes: tuple[str, ...], result: SegmentationEvaluation) -> list[str]:
    """The scores of each class, see :func:`class_table`."""
    return class_table(result.found.table(classes), result.found.iou, "IoU")


def per_class(
    classes: tuple[str, ...], result: SegmentationEvaluation
) -> dict[str, dict[str, float | None]]:
    """IoU and accuracy of each class in percent, None where there is none."""
    values = zip(classes, result.found.iou, result.found.accuracy, strict=True)
    return {
        name: {"IoU": None if iou != iou else iou, "Acc": None if acc != acc else acc}
        for name, iou, acc in values
    }


def _report(
    options: ValidationOptions, scenes: SceneFolder, world: World
) -> SceneReport | nullcontext[None]:
    if not options.report:
        return nullcontext()
    return SceneReport(Path(options.report), scenes, palette_of(scenes.classes), world)


def validate_bundle(recipe: Recipe, options: ValidationOptions, world: World) -> Outcome:
    """Evaluate the graphs that a bundle holds; of the recipe only the scenes."""
    bundle = bundle_asked_for(load_segmenter_bundle, recipe, options)
    scenes = splits.validation_scenes(recipe, bundle.classes, len(bundle.classes))

    def label(pictures: Tensor, size: tuple[int, int]) -> np.ndarray:
        return bundle.label_map(pictures.asnumpy()[0])[None]

    facts = facts_of(bundle, options.bundle)
    facts |= {"data": str(scenes.root), "ranks": world.size}
    with _report(options, scenes, world) as report:
        (result,), _ = evaluate_scenes(
            [label],
            _pictures(scenes, world),
            num_classes=len(bundle.classes),
            world_size=world.size,
            bar=world.is_main,
            see=report.see if report else None,
        )
        facts |= result.scores
        if report:
            report.write(result.found, facts)
    names = ", ".join(str(bundle.folder / name) for name in facts["files"])
    where = f"{names} on {counted(len(scenes), 'scene')} of {scenes.root}, in {facts['runtime']}"
    lines = [*scenes.notes, where]
    lines.append(describe(facts["precision"], result))
    facts["classes"] = per_class(scenes.classes, result)
    return Outcome([*lines, *table(scenes.classes, result)], facts)


def _pictures(scenes: SceneFolder, world: World) -> Iterator[tuple[Tensor, Tensor]]:
    """This rank's pictures (1, H, W, 3) uint8, and their labels (1, H, W)."""
    for scene in range(world.rank, len(scenes), world.size):
        picture, label = scenes.read(scene)
        yield Tensor(picture[None]), Tensor(label[None].astype(np.int32))
