"""Validation of detectors: COCO's twelve numbers over every picture once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mindcv
import numpy as np
from mindspore import Tensor

from ..config import Recipe
from ..data.detection.coco import CocoPictures
from ..data.detection.fitting import IMG_SCALE, EvalTransform
from ..data.detection.loader import evaluation_batches
from ..data.detection.splits import pictures_to_validate_on
from ..data.order import Shard
from ..evaluation.coco_scores import Scores
from ..evaluation.detection import (
    DetectionEvaluation,
    DetectionEvaluator,
    Found,
    evaluate_pictures,
)
from ..export.detector import DetectorBundle, Prepared, load_detector_bundle
from ..models import DETECTORS, MaskRCNN, RetinaNet
from ..models.parts.mixers import choose_attention
from ..report.detections import write_report
from ..report.outcome import Outcome
from ..runtime.counted import counted
from ..runtime.errors import UserError
from ..runtime.launch import World
from ..weights import ModelWeights, find_weights, load_weights
from .class_table import class_table
from .picture_bundles import bundle_asked_for, facts_of
from .validation import ValidationOptions


def validate(recipe: Recipe, options: ValidationOptions, world: World) -> Outcome:
    """Evaluate at one AMP level, or at two on the same pictures."""
    if options.deploy:
        raise UserError("deploy: found it with task detection, expected it with another task")
    weights = find_weights(recipe.model, Path(recipe.checkpointing.ckpt_save_dir) / "best.ckpt")
    if recipe.model.num_classes not in (None, weights.num_classes):
        raise UserError(
            f"num_classes: found {recipe.model.num_classes} for {weights.path}, a network of "
            f"{counted(weights.num_classes, 'class')}, expected null or that number"
        )
    masks = DETECTORS[recipe.model.model].masks
    pictures = pictures_to_validate_on(
        recipe, weights.classes or None, weights.num_classes, masks=masks
    )
    level, other_level = recipe.system.eval_amp_level, options.compare_amp_level
    evaluator = evaluator_of(recipe, restored(recipe, weights), level, pictures, world)
    other = None
    if other_level:
        other = evaluator_of(recipe, restored(recipe, weights), other_level, pictures, world)

    results = evaluator.evaluate_beside(other)
    facts: dict[str, Any] = {
        "model": recipe.model.model,
        "checkpoint": str(weights.path),
        "data": str(pictures.file.path),
        "ranks": world.size,
        "amp_level": level,
        "padding": "canvas" if recipe.detection.val_canvas else "multiple",
        **results[0].scores,
    }
    if other_level:
        facts["compared"] = {"amp_level": other_level, **results[1].scores}
    facts["classes"] = per_class(pictures.classes, results[0])
    if options.report and world.is_main:
        write_report(Path(options.report), pictures, results[0], facts)

    told = (weights.note, limits_note(recipe, weights))
    notes = [*pictures.notes, *(note for note in told if note)]
    padded = ", padded to a canvas" if recipe.detection.val_canvas else ""
    lines = [
        *notes,
        f"{weights.path} on {counted(len(pictures), 'picture')} of {pictures.file.path}{padded}",
    ]
    lines += [describe(level, results[0]), *tables(results[0])]
    if other_level:
        lines.append(describe(other_level, results[1]))
    return Outcome([*lines, *table(pictures.classes, results[0])], facts)


def restored(recipe: Recipe, weights: ModelWeights) -> RetinaNet | MaskRCNN:
    """Give the network of weights, whose neck and head are as wide as these have them.

    Raises:
        UserError: as :func:`load_weights`.
    """
    network = mindcv.create_model(recipe.model.model, **weights.settings | limits(recipe))
    choose_attention(network, recipe.system.flash_attention)
    load_weights(network, weights)
    return network


def limits_note(recipe: Recipe, weights: ModelWeights) -> str:
    """Tell which of the recipe's limits count in the place of a checkpoint's; empty for none."""
    counts, kept = limits(recipe), weights.limits
    other = {key: value for key, value in kept.items() if counts.get(key, value) != value}
    told = [f"{key} {counts[key]} instead of {value}" for key, value in other.items()]
    return f"{weights.path}: the recipe's limits count, {', '.join(told)}" if told else ""


def limits(recipe: Recipe) -> dict[str, Any]:
    """What a recipe lets count as an object, as a detector takes it."""
    settings = recipe.detection
    common = {
        "score_threshold": settings.score_thr,
        "iou_threshold": settings.nms_iou_threshold,
        "detections": settings.max_per_img,
    }
    if not DETECTORS[recipe.model.model].masks:
        return common | {"candidates": settings.nms_pre}
    proposals = settings.rpn_max_per_img
    return common | {"proposals_per_level": settings.nms_pre, "proposals": proposals}


def evaluator_of(
    recipe: Recipe, network: RetinaNet | MaskRCNN, level: str, pictures: CocoPictures, world: World
) -> DetectionEvaluator:
    """Give what evaluates a network, at an AMP level, on pictures."""
    shard = Shard(world.rank, world.size)
    dataset = evaluation_batches(
        pictures,
        eval_transform(recipe),
        shard=shard,
        num_parallel_workers=recipe.system.num_parallel_workers,
        canvas=recipe.detection.canvas if recipe.detection.val_canvas else None,
    )
    return DetectionEvaluator(network, level, pictures, dataset, shard, world.is_main)


def eval_transform(recipe: Recipe) -> EvalTransform:
    """What happens to each picture in validation."""
    dense, augmentation = recipe.dense, recipe.augmentation
    return EvalTransform(
        dense.img_scale or IMG_SCALE, dense.size_divisor, augmentation.mean, augmentation.std
    )


def describe(level: str, result: DetectionEvaluation) -> str:
    """One line for people."""
    return f"{level:>4}: {result} ({result.images_per_second:.2f} images/s)"


def tables(result: DetectionEvaluation) -> list[str]:
    """COCO's numbers for boxes, and for masks where there are any."""
    lines = result.found.boxes.table().splitlines()
    if result.found.masks:
        lines += ["masks:", *result.found.masks.table().splitlines()]
    return lines


def table(classes: tuple[str, ...], result: DetectionEvaluation) -> list[str]:
    """The scores of each class, see :func:`class_table`."""
    return class_table(result.found.table(classes), result.found.boxes.by_class, "AP")


def per_class(
    classes: tuple[str, ...], result: DetectionEvaluation
) -> dict[str, dict[str, float | None]]:
    """AP of each class in percent, None where there is no object."""

    def of(scores: Scores, index: int) -> float | None:
        value = float(scores.by_class[index])
        return None if value != value else value

    found = {"box_AP": result.found.boxes}
    if result.found.masks:
        found["mask_AP"] = result.found.masks
    return {
        name: {key: of(scores, index) for key, scores in found.items()}
        for index, name in enumerate(classes)
    }


def validate_bundle(recipe: Recipe, options: ValidationOptions, world: World) -> Outcome:
    """Evaluate the graphs that a bundle holds; of the recipe only the pictures."""
    bundle = bundle_asked_for(load_detector_bundle, recipe, options)
    masks = bundle.objects.mask_edge is not None
    pictures = pictures_to_validate_on(recipe, bundle.classes, len(bundle.classes), masks=masks)
    shard = Shard(world.rank, world.size)

    def detect(images: Tensor, shapes: Tensor, scale_factors: Tensor) -> Found:
        image, shape, scale = (each.asnumpy() for each in (images, shapes, scale_factors))
        return bundle.run(Prepared(image, shape, np.tile(scale[0], 2)))

    (result,) = evaluate_pictures(
        [detect],
        pictures,
        _prepared(bundle, pictures, shard),
        masks=masks,
        shard=shard,
        bar=world.is_main,
    )
    facts = facts_of(bundle, options.bundle) | {
        "data": str(pictures.file.path),
        "ranks": world.size,
        **result.scores,
        "classes": per_class(pictures.classes, result),
    }
    if options.report and world.is_main:
        write_report(Path(options.report), pictures, result, facts)
    names = ", ".join(str(bundle.folder / name) for name in facts["files"])
    where = (
        f"{names} on {counted(len(pictures), 'picture')} of {pictures.file.path}, in "
        f"{facts['runtime']}"
    )
    lines = [*pictures.notes, where, describe(facts["precision"], result), *tables(result)]
    return Outcome([*lines, *table(pictures.classes, result)], facts)


def _prepared(
    bundle: DetectorBundle, pictures: CocoPictures, shard: Shard
) -> Iterator[tuple[Tensor, ...]]:
    """This rank's pictures as the bundle's graphs take them, see ``evaluation_batches``."""
    for number in range(shard.rank, len(pictures), shard.size):
        one = bundle.prepare(pictures.pixels(number))
        yield tuple(map(Tensor, (one.image, one.shape, one.scale[None], np.array([number]))))
