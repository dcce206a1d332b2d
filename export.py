"""Export a checkpoint as a bundle: a MINDIR, or several, and model.json, proven on real images.

Without flags this exports the best checkpoint of the demo run; predict.py reads the bundle.
"""

from __future__ import annotations

import mindcv_poolformer  # noqa: F401  sets the CPU up, before MindSpore is imported

# isort: split

import dataclasses
import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import mindcv
import numpy as np
from jsonargparse.typing import PositiveInt
from PIL import Image

from mindcv_poolformer.config import PathText, Recipe, parse_recipe, shown
from mindcv_poolformer.data.folder import class_folders, find_images, scan_folder
from mindcv_poolformer.data.photographs import PHOTOGRAPHS, photograph_crops
from mindcv_poolformer.data.preprocess import EvalTransform, open_image
from mindcv_poolformer.data.transforms import eval_transform
from mindcv_poolformer.export.choices import Choices
from mindcv_poolformer.export.description import MINDIR, ONNX
from mindcv_poolformer.export.mindir import Trained, UnprovenError, write_bundle
from mindcv_poolformer.models.variants import check_image_size
from mindcv_poolformer.runtime.device import set_up_device
from mindcv_poolformer.runtime.errors import UserError, run
from mindcv_poolformer.runtime.launch import World
from mindcv_poolformer.weights import find_weights, load_weights

DEMO = Path(__file__).parent / "configs" / "poolformer_s12_digits.yaml"
MOST_SAMPLES = 16
RECIPE_KEYS = {"image_size": "image_resize", "interpolation": "val_interpolation"}


@dataclass(frozen=True)
class ExportOptions:
    """export: what to write

    Args:
        export_dir: folder of the bundle, empty for <ckpt_save_dir>/bundle. The weights are those
            of ckpt_path, empty for <ckpt_save_dir>/best.ckpt.
        deploy: write the deploy form, whose norms and layer scales are folded into the weights;
            null does unless its proof fails, which is said.
        precision: of weights and arithmetic; fp16 halves the file. Input and logits stay float32.
        file_format: ONNX writes model.onnx beside the MINDIR, AIR model.air; AIR on Ascend only.
        input: uint8 takes pixels (N, H, W, C) at the network's size and normalises in the graph.
        output: of the graph.
        layout: of the maps within the graphs, null for that of the device that writes them. NCHW
            has MindSpore's own operators, as Ascend and MindSpore Lite want them; NHWC the CPU's
            products.
        export_image_size: edges of the images that the bundle takes, the first is its default; a
            MINDIR for each. Empty for image_resize.
        export_batch_size: the only batch sizes that the bundle takes; a MINDIR for each. Empty
            for one MINDIR that takes any.
        enc_key_file: file of 16, 24 or 32 bytes, the key to encrypt the MINDIRs with (AES-GCM);
            empty for readable ones.
        sample_images: image or folder of images to prove the export on, the first 16; empty for
            images of <data_dir>/<val_split>, or where there is no data_dir for crops of the two
            photographs that scikit-learn ships, which is said.
        overwrite: replace an existing bundle once the new one is proven.
    """

    export_dir: PathText = ""
    deploy: bool | None = None
    precision: Literal["fp32", "fp16"] = "fp32"
    file_format: Literal["MINDIR", "ONNX", "AIR"] = "MINDIR"
    input: Literal["float32", "uint8"] = "float32"
    output: Literal["logits", "probabilities"] = "logits"
    layout: Literal["NCHW", "NHWC"] | None = None
    export_image_size: tuple[PositiveInt, ...] = ()
    export_batch_size: tuple[PositiveInt, ...] = ()
    enc_key_file: PathText = ""
    sample_images: PathText = ""
    overwrite: bool = False


def main() -> None:
    started = time.perf_counter()
    recipe, options = parse_recipe(
        None,
        description=__doc__,
        default_config=str(DEMO),
        options=ExportOptions,
        shown=shown.EXPORT,
    )
    system = recipe.system
    if options.file_format == "AIR" and system.device_target != "Ascend":
        raise UserError("file_format: found AIR on the CPU, expected MINDIR: AIR needs Ascend")
    choices = choose(options, system.flash_attention)
    choices.check()
    set_up_device(system.device_target, system.mode, system.jit_level, World())
    trained = restore(recipe, options)
    images, origin = proof_images(recipe, options.sample_images)
    sizes = options.export_image_size or (trained.transform.image_size,)
    samples, *further = (
        np.stack([at_size(trained.transform, size)(image) for image in images])
        for size in dict.fromkeys(sizes)
    )
    target = Path(options.export_dir or Path(recipe.checkpointing.ckpt_save_dir) / "bundle")
    write = functools.partial(
        write_bundle,
        trained,
        target,
        samples,
        further=further,
        origin=origin,
        overwrite=options.overwrite,
    )
    try:
        description = write(choices)
    except UnprovenError as error:
        if options.deploy is not None or choices.beside == "ONNX":
            raise
        print(f"deploy form: {error}; writing the plain form instead")
        description = write(dataclasses.replace(choices, deploy=False))
    report(target, description, time.perf_counter() - started)


def choose(options: ExportOptions, flash_attention: bool | None) -> Choices:
    """What the graphs are to be."""
    return Choices(
        precision=options.precision,
        deploy=options.deploy is not False,
        batch_sizes=tuple(sorted(set(options.export_batch_size))),
        takes=options.input,
        gives=options.output,
        flash_attention=bool(flash_attention),
        layout=options.layout,
        beside=None if options.file_format == "MINDIR" else options.file_format,
        key_file=options.enc_key_file or None,
    )


def at_size(transform: EvalTransform, image_size: int) -> EvalTransform:
    """The same preparation of images for another size of the network's input."""
    return dataclasses.replace(transform, image_size=image_size)


def report(target: Path, description: dict[str, Any], seconds: float) -> None:
    """Tell what was written and how it was proven."""
    size = description["files"][MINDIR]["size"]
    print(
        f"{target / MINDIR}: {description['model']} in {description['precision']}, "
        f"{description['form']} form, {size / 1e6:.1f} MB, {seconds:.0f} s"
    )
    several = [name for name in description["graphs"] if name != MINDIR]
    if several:
        print(f"beside it: {', '.join(several)}")
    for proof in description["verification"]:
        print(
            f"{proof['file_format']} at {proof['image_size']} px: {proof['compared']} "
            f"on {proof['images']} images within {proof['max_abs_difference']:.2g} of the "
            f"checkpoint's (allowed {proof['tolerance']:.2g}), top-1 equal on "
            f"{proof['top1_agreement']:.1%}"
        )
    proven = {proof["file_format"] for proof in description["verification"]}
    if ONNX in description["graphs"] and "ONNX" not in proven:
        print(f"{ONNX}: not run, only checked: found no package onnxruntime")


def restore(recipe: Recipe, options: ExportOptions) -> Trained:
    """The recipe's model with the weights of its checkpoint, and what is known about it."""
    name = recipe.model.model
    check_image_size(name, recipe.augmentation.image_resize)
    for size in options.export_image_size:
        check_image_size(name, size, "export_image_size")
    weights = find_weights(recipe.model, Path(recipe.checkpointing.ckpt_save_dir) / "best.ckpt")
    if weights.note:
        print(f"{weights.path}: {weights.note}")
    transform = eval_transform(recipe.augmentation)
    if weights.preprocessing:
        trained = EvalTransform.from_dict(weights.preprocessing)
        check_preprocessing(transform, trained, weights.path)
    num_classes = recipe.model.num_classes or weights.num_classes
    if not num_classes:
        raise UserError(f"{weights.path}: found no classifier, expected one")
    network = mindcv.create_model(
        name,
        num_classes=num_classes,
        in_channels=recipe.model.in_channels,
        head=weights.head,
    )
    load_weights(network, weights)
    classes = class_names(recipe, weights.classes, num_classes)
    if options.export_image_size:
        transform = at_size(transform, options.export_image_size[0])
    return Trained(network, name, weights.path, transform, classes)


def check_preprocessing(ours: EvalTransform, trained: EvalTransform, path: Path) -> None:
    """Refuse a recipe that prepares images otherwise than the training's validation did."""
    for name in (field.name for field in fields(EvalTransform)):
        found, expected = getattr(ours, name), getattr(trained, name)
        if found != expected:
            key = RECIPE_KEYS.get(name, name)
            raise UserError(f"{key}: found {found} in the recipe, expected {expected} as in {path}")


def class_names(recipe: Recipe, names: Sequence[str], count: int) -> tuple[str, ...]:
    """Names of the outputs: the checkpoint's, or else the training folders', or else numbers."""
    folder = Path(recipe.data.data_dir) / recipe.data.train_split
    if not names and folder.is_dir():
        folders = class_folders(folder)
        names = folders if len(folders) == count else []
    if len(names) < count:
        print(f"classes: outputs {len(names)} to {count - 1} have no name, so their number is it")
    return (*names, *map(str, range(len(names), count)))


def proof_images(recipe: Recipe, given: str) -> tuple[list[Image.Image], str]:
    """At most 16 images to prove the export on, and where they are from."""
    channels = recipe.model.in_channels
    data_dir = Path(recipe.data.data_dir)
    if given:
        paths, origin = find_images([given])[:MOST_SAMPLES], "sample_images"
    elif data_dir.is_dir():
        paths, origin = spread_over_classes(data_dir / recipe.data.val_split), "val_split"
    else:
        crops = photograph_crops(channels)
        origin = f"{len(crops)} crops of scikit-learn's {' and '.join(PHOTOGRAPHS)}"
        print(f"sample_images: found no folder {data_dir}, so the proof is on {origin}")
        return crops, origin
    return [open_image(path, channels) for path in paths], origin


def spread_over_classes(folder: Path) -> list[Path]:
    """At most 16 images of <folder>/<class>/*, the first ones of each class."""
    if not folder.is_dir():
        raise UserError(f"sample_images: found no folder {folder}, expected --sample_images")
    images = scan_folder(folder)
    turn = np.arange(len(images)) - np.searchsorted(images.labels, images.labels)
    return [Path(images.paths[i]) for i in np.lexsort((images.labels, turn))[:MOST_SAMPLES]]


if __name__ == "__main__":
    run(main)
