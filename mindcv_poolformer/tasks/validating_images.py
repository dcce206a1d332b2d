"""Validation of classifiers: exact top-1, top-5 and cross entropy over every image once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mindspore import Tensor

from ..config import Recipe
from ..data import loader, splits
from ..data.folder import ImageFolder
from ..evaluation.classification import Evaluation, Evaluator, agreement, evaluate
from ..evaluation.remedies import DAMAGED, OVERFLOW
from ..export.bundle import load_bundle
from ..export.description import read_description
from ..export.runtimes import chosen, told
from ..models.deploy import to_deploy
from ..report.findings import Findings
from ..report.outcome import Outcome
from ..runtime.counted import counted
from ..runtime.errors import UserError
from ..runtime.launch import World
from ..weights import ModelWeights, find_weights, load_weights
from ..weights.labels import folders_of, match, order_tells, respelled, strangers
from .validation import ValidationOptions


def validate(recipe: Recipe, options: ValidationOptions, world: World) -> Outcome:
    """Evaluate at one AMP level or two."""
    weights = find_weights(recipe.model, Path(recipe.checkpointing.ckpt_save_dir) / "best.ckpt")
    images, notes = images_for_weights(weights, recipe)
    num_classes = recipe.model.num_classes or weights.num_classes

    level = recipe.system.eval_amp_level
    result = evaluate_at(level, recipe, world, images, num_classes, weights, options.deploy)
    facts: dict[str, Any] = {
        "model": recipe.model.model,
        "checkpoint": str(weights.path),
        "data": str(images.root),
        "ranks": world.size,
        "amp_level": level,
        "form": "deploy" if options.deploy else "plain",
        **result.scores,
    }
    form = ", deploy form" if options.deploy else ""
    where = f"{weights.path} on {counted(len(images), 'image')} of {images.root}{form}"
    lines = [*images.notes, where, *notes]
    lines.append(describe(level, result))
    other = None
    if options.compare_amp_level:
        other = evaluate_at(options.compare_amp_level, recipe, world, images, num_classes, weights)
        same = agreement(result, other, world_size=world.size)
        facts["compared"] = {"amp_level": options.compare_amp_level, **other.scores}
        facts["agreement"] = same
        lines += [
            describe(options.compare_amp_level, other),
            f"{level} and {options.compare_amp_level} agree on {same:.2f} % of the images",
        ]
    names = weights.classes or images.classes
    names += tuple(map(str, range(len(names), num_classes)))  # outputs that nobody has named
    return Outcome(lines, facts, Findings(images, names, result, other))


def validate_bundle(recipe: Recipe, options: ValidationOptions, world: World) -> Outcome:
    """Evaluate the graph that a bundle holds; of the recipe only images and workers."""
    device = recipe.system.device_target
    taken = chosen(read_description(options.bundle), options.runtime, device)
    bundle = load_bundle(
        options.bundle,
        image_size=options.image_size,
        runtime=taken,
        key_file=options.dec_key_file or None,
    )
    images, note = images_for(bundle.classes, bundle.folder, recipe)
    dataset = loader.evaluation_dataset(
        images,
        bundle.loading,
        batch_size=recipe.data.batch_size,
        shard=loader.Shard(world.rank, world.size),
        num_parallel_workers=recipe.system.num_parallel_workers,
    )
    result = evaluate(
        lambda batch: Tensor(bundle.logits(bundle.to_input(batch.asnumpy()))),
        loader.batches(dataset),
        world_size=world.size,
        bar=world.is_main,
        remedy=f"{OVERFLOW}; try a bundle in fp32" if bundle.precision == "fp16" else DAMAGED,
    )
    facts = {
        "model": bundle.model,
        "bundle": options.bundle,
        "files": bundle.checksums,
        "runtime": told(bundle.runtime),
        "precision": bundle.precision,
        "image_size": bundle.transform.image_size,
        "data": str(images.root),
        "ranks": world.size,
        **result.scores,
    }
    names = ", ".join(str(bundle.folder / name) for name in bundle.checksums)
    lines = [
        f"{names} on {counted(len(images), 'image')} of {images.root}, in {told(bundle.runtime)}",
        describe(bundle.precision, result),
    ]
    return Outcome([*images.notes, *note, *lines], facts, Findings(images, bundle.classes, result))


def images_for_weights(weights: ModelWeights, recipe: Recipe) -> tuple[ImageFolder, list[str]]:
    """The validation images with labels that index the outputs, and what to say of the weights.

    Folders are the outputs of the same name, or have the WordNet ids of ImageNet's. Where no names
    tell, the folders' order does; :func:`match` tells what is said then, and what refused.
    """
    images = splits.validation_images(recipe.data, weights.folders)
    folders, said = match(weights, images.classes, recipe.model.num_classes)
    if folders and not weights.folders:
        images = splits.validation_images(recipe.data, folders)
    return images, list(filter(None, (weights.note, said)))


def images_for(
    classes: Sequence[str], place: Path, recipe: Recipe
) -> tuple[ImageFolder, list[str]]:
    """The validation images with labels that index a bundle's outputs, and what to say of them.

    Folders are classes of the same name, or have the WordNet ids of ImageNet's. Where the bundle's
    names are no folders', such as "tench, Tinca tinca", the folders' order tells.

    Args:
        classes: name of each output.
        place: where they are from, for the error.
        recipe: names the images.
    """
    images = splits.validation_images(recipe.data, None)
    if folders := folders_of(classes, images.classes):
        return splits.validation_images(recipe.data, folders), []
    names = respelled(classes, images.classes)
    stranger = next(name for name in images.classes if names.count(name) != 1)
    if len(images.classes) != len(classes):
        raise UserError(
            f"{images.root}: found the class {stranger} among {len(images.classes)}, expected "
            f"those of the bundle, or as many in their order: {len(classes)}"
        )
    said = order_tells(names, images.classes, place)
    return images, [said or strangers(names, images.classes)]


def evaluate_at(
    level: str,
    recipe: Recipe,
    world: World,
    images: ImageFolder,
    num_classes: int,
    weights: ModelWeights,
    deploy: bool = False,
) -> Evaluation:
    """Load the weights into a network of that AMP level and evaluate it, or its deploy form."""
    evaluator = Evaluator(recipe, level, images, num_classes, weights.head, world)
    load_weights(evaluator.network, weights)
    if deploy:
        evaluator.use(to_deploy(evaluator.network))
    return evaluator.evaluate()


def describe(level: str, result: Evaluation) -> str:
    """One line for people."""
    return f"{level:>4}: {result} ({result.images_per_second:.1f} images/s)"
