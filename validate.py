"""Validate a checkpoint or a bundle: exact top-1, top-5, cross entropy over every image once.

Without flags this validates the best checkpoint of the demo run.
"""

from __future__ import annotations

import mindcv_poolformer  # noqa: F401  sets the CPU up, before MindSpore is imported

# isort: split

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jsonargparse.typing import PositiveInt
from mindspore import Tensor

from mindcv_poolformer.config import PathText, Recipe, parse_recipe, shown
from mindcv_poolformer.data import loader, splits
from mindcv_poolformer.data.folder import ImageFolder
from mindcv_poolformer.evaluation.classification import (
    Evaluation,
    Evaluator,
    agreement,
    evaluate,
)
from mindcv_poolformer.evaluation.remedies import DAMAGED, OVERFLOW
from mindcv_poolformer.export.bundle import Bundle, load_bundle
from mindcv_poolformer.models.deploy import to_deploy
from mindcv_poolformer.report.findings import Findings
from mindcv_poolformer.report.outcome import Outcome, Targets
from mindcv_poolformer.runtime.device import set_up_device
from mindcv_poolformer.runtime.errors import UserError, run, said_once
from mindcv_poolformer.runtime.launch import World, discover, joined
from mindcv_poolformer.tasks import task_of
from mindcv_poolformer.weights import ModelWeights, find_weights, load_weights
from mindcv_poolformer.weights.labels import folders_of, match, order_tells

DEMO = Path(__file__).parent / "configs" / "poolformer_s12_digits.yaml"


@dataclass(frozen=True)
class Options:
    """validation: beside the recipe

    Args:
        deploy: validate the deploy form, which export.py writes.
        compare_amp_level: validate the plain form at this level too, and tell for how many images
            both predict the same; null for no comparison.
        result_file: write the results to this file, as JSON; empty for none.
        report: write a report to this folder: confusion matrix, accuracy of each class, the most
            confident mistakes, calibration, and with compare_amp_level the images on which both
            disagree, as tables, pictures and a page; empty for none.
        overwrite: replace an existing report.
        bundle: validate what export.py wrote to this folder instead of a checkpoint; images are
            prepared as the bundle tells. Empty for a checkpoint.
        file_format: the bundle's graph to run.
        image_size: one of the bundle's, null for its first.
        dec_key_file: file with the key of an encrypted bundle.
    """

    deploy: bool = False
    compare_amp_level: Literal["O0", "O2", "O3", "auto"] | None = None
    result_file: PathText = ""
    report: PathText = ""
    overwrite: bool = False
    bundle: PathText = ""
    file_format: Literal["MINDIR", "ONNX"] = "MINDIR"
    image_size: PositiveInt | None = None
    dec_key_file: PathText = ""


def main() -> None:
    with said_once():
        recipe, options = parse_recipe(
            None,
            description=__doc__,
            default_config=str(DEMO),
            options=Options,
            shown=shown.VALIDATION,
        )
    world = discover()
    check_options(recipe, options)
    targets = Targets(options.result_file, options.report, options.overwrite)
    targets.check()
    system = recipe.system
    set_up_device(system.device_target, system.mode, system.jit_level, world, system.deterministic)
    with joined(world, system.device_target):
        outcome = (validate_bundle if options.bundle else validate)(recipe, options, world)
        outcome.publish(targets, world)


def check_options(recipe: Recipe, options: Options) -> None:
    """Refuse what excludes each other, before the work instead of after it."""
    if not options.bundle:
        level = recipe.system.eval_amp_level
        levels = {"val_amp_level": level, "compare_amp_level": options.compare_amp_level}
        task_of(recipe).check(recipe, levels)
    else:
        for key in ("deploy", "compare_amp_level"):
            if getattr(options, key):
                raise UserError(f"{key}: found it with bundle, expected it with a checkpoint alone")
        if recipe.model.ckpt_path:
            raise UserError("ckpt_path: found it with bundle, expected one of them")
    for key in ("file_format", "image_size", "dec_key_file"):
        if not options.bundle and getattr(options, key) != getattr(Options, key):
            raise UserError(f"{key}: found it without bundle, expected one")


def validate(recipe: Recipe, options: Options, world: World) -> Outcome:
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
    where = f"{weights.path} on {len(images)} images of {images.root}{form}"
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


def validate_bundle(recipe: Recipe, options: Options, world: World) -> Outcome:
    """Evaluate the graph that a bundle holds; of the recipe only images and workers."""
    bundle = load_bundle(
        options.bundle,
        image_size=options.image_size,
        file_format=options.file_format,
        key_file=options.dec_key_file or None,
    )
    images, note = images_for(bundle, recipe)
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
        remedy=DAMAGED if bundle.precision == "fp32" else f"{OVERFLOW}; try a bundle in fp32",
    )
    facts = {
        "model": bundle.model,
        "bundle": options.bundle,
        "files": bundle.checksums,
        "precision": bundle.precision,
        "image_size": bundle.transform.image_size,
        "data": str(images.root),
        "ranks": world.size,
        **result.scores,
    }
    names = ", ".join(str(bundle.folder / name) for name in bundle.checksums)
    lines = [
        f"{names} on {len(images)} images of {images.root}",
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


def images_for(bundle: Bundle, recipe: Recipe) -> tuple[ImageFolder, list[str]]:
    """The validation images with labels that index the bundle's outputs, and what to say of them.

    Folders are classes of the same name, or have the WordNet ids of ImageNet's. Where the bundle's
    names are no folders', such as "tench, Tinca tinca", the folders' order tells.
    """
    images = splits.validation_images(recipe.data, None)
    if folders := folders_of(bundle.classes, images.classes):
        return splits.validation_images(recipe.data, folders), []
    stranger = next(name for name in images.classes if bundle.classes.count(name) != 1)
    if len(images.classes) != len(bundle.classes):
        raise UserError(
            f"{images.root}: found the class {stranger} among {len(images.classes)}, expected "
            f"those of the bundle, or as many in their order: {len(bundle.classes)}"
        )
    said = order_tells(bundle.classes, images.classes, bundle.folder)
    return images, [
        said
        or f"classes: the folders are not named as the bundle's ({stranger} is none of them), "
        "so their order tells"
    ]


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


if __name__ == "__main__":
    run(main)
