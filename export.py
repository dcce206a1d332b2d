"""Export a checkpoint as a bundle: a MINDIR, or several, and model.json, proven on real images.

Without flags this exports the best checkpoint of the demo run; predict.py reads the bundle.
"""

from __future__ import annotations

import mindcv_poolformer  # noqa: F401  sets the CPU up, before MindSpore is imported
import mindcv_poolformer.runtime.requires_mindspore  # noqa: F401

# isort: split

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import mindcv
import numpy as np
from jsonargparse.typing import PositiveInt
from PIL import Image

from mindcv_poolformer.config import GraphSize, PathText, Recipe, parse_recipe, shown
from mindcv_poolformer.data.detection.fitting import EvalTransform as PictureTransform
from mindcv_poolformer.data.folder import class_folders, find_images, scan_folder
from mindcv_poolformer.data.photographs import PHOTOGRAPHS, photograph_crops
from mindcv_poolformer.data.preprocess import EvalTransform, open_image
from mindcv_poolformer.data.segmentation.scenes import IMAGES
from mindcv_poolformer.data.transforms import eval_transform
from mindcv_poolformer.export.choices import Choices, missing_for_onnx
from mindcv_poolformer.export.class_names import with_numbers
from mindcv_poolformer.export.description import MINDIR, ONNX
from mindcv_poolformer.export.detectors import graph_sizes, pictures_at, trained_detector
from mindcv_poolformer.export.image_size import Size, as_size, read_size
from mindcv_poolformer.export.image_size import shown as shown_size
from mindcv_poolformer.export.mindir import Samples, Trained, UnprovenError, write_bundle
from mindcv_poolformer.export.proof_pictures import proof_pictures
from mindcv_poolformer.export.segmenters import (
    check_sizes,
    scenes_at,
    trained_segmenter,
)
from mindcv_poolformer.models.variants import check_image_size, find_detector, find_segmenter
from mindcv_poolformer.runtime.device import set_up_device
from mindcv_poolformer.runtime.errors import UserError, run
from mindcv_poolformer.runtime.launch import World
from mindcv_poolformer.tasks.validating_pictures import eval_transform as eval_transform_of_pictures
from mindcv_poolformer.tasks.validating_pictures import restored as restored_detector
from mindcv_poolformer.tasks.validating_scenes import eval_transform as eval_transform_of_scenes
from mindcv_poolformer.weights import find_weights, load_weights

DEMO = Path(__file__).parent / "configs" / "poolformer_s12_digits.yaml"
MOST_SAMPLES = 16
Preparation = Callable[..., tuple[Trained, Sequence[Samples], str]]
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
        file_format: MINDIR writes that alone, ONNX model.onnx beside it, AIR model.air, which only
            Ascend can. null is ONNX where it can be written: of the deploy form, not encrypted.
        input: uint8 takes pixels (N, H, W, C) at the network's size and normalises in the graph;
            not of a detector.
        output: of the graph; a segmenter gives logits, at a quarter of height and width, and a
            detector boxes, scores, labels and their number, a Mask R-CNN masks too.
        layout: of the maps within the graphs, null for that of the device that writes them. NCHW
            has MindSpore's own operators, as Ascend and MindSpore Lite want them; NHWC the CPU's
            products.
        export_image_size: edges of the images that the bundle takes, the first is its default; a
            MINDIR for each. Empty for image_resize. Of a segmenter also height x width, such as
            512x683: a picture goes to the size of the shape nearest to its own; empty for 512. Of a
            detector multiples of 32, empty for what img_scale fits in, lying and standing.
        export_batch_size: the only batch sizes that the bundle takes; a MINDIR for each. Empty
            for one MINDIR that takes any; a detector's takes one picture.
        enc_key_file: file of 16, 24 or 32 bytes, the key to encrypt the MINDIRs with (AES-GCM);
            empty for readable ones.
        sample_images: image or folder of images to prove the export on, the first 16, of a
            segmenter or detector 2; empty for images of the validation split, or where there is no
            data_dir for the two photographs that scikit-learn ships, or crops of them, which is
            said.
        overwrite: replace an existing bundle once the new one is proven.
    """

    export_dir: PathText = ""
    deploy: bool | None = None
    precision: Literal["fp32", "fp16"] = "fp32"
    file_format: Literal["MINDIR", "ONNX", "AIR"] | None = None
    input: Literal["float32", "uint8"] = "float32"
    output: Literal["logits", "probabilities"] = "logits"
    layout: Literal["NCHW", "NHWC"] | None = None
    export_image_size: tuple[GraphSize, ...] = ()
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
    flash_attention = bool(system.flash_attention)
    choices = choose(options, flash_attention)
    choices.check()
    set_up_device(system.device_target, system.mode, system.jit_level, World())
    sizes = tuple(dict.fromkeys(map(read_size, options.export_image_size)))
    prepare = PREPARATIONS[recipe.model.task]
    trained, (samples, *further), origin = prepare(recipe, sizes, options)
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
        if error.file_format == "ONNX" and options.file_format is None:
            print(f"{ONNX}: {error}; writing the bundle without it")
            description = write(dataclasses.replace(choices, beside=None))
            return report(target, description, time.perf_counter() - started)
        if options.deploy is not None or options.file_format == "ONNX":
            raise
        print(f"deploy form: {error}; writing the plain form instead")
        description = write(choose(dataclasses.replace(options, deploy=False), flash_attention))
    report(target, description, time.perf_counter() - started)


def choose(options: ExportOptions, flash_attention: bool) -> Choices:
    """What the graphs are to be; says why there will be no ONNX graph where nobody asked."""
    wanted = options.file_format
    if wanted is None and (reason := without_onnx(options)):
        print(f"{ONNX}: not written, {reason}")
        wanted = "MINDIR"
    wanted = wanted or "ONNX"
    return Choices(
        precision=options.precision,
        deploy=options.deploy is not False,
        batch_sizes=tuple(sorted(set(options.export_batch_size))),
        takes=options.input,
        gives=options.output,
        flash_attention=flash_attention,
        layout=options.layout,
        beside=None if wanted == "MINDIR" else wanted,
        key_file=options.enc_key_file or None,
    )


def without_onnx(options: ExportOptions) -> str:
    """Why the bundle cannot have an ONNX graph, empty if it can."""
    if options.deploy is False:
        return "since it is made of the deploy form's weights"
    if options.enc_key_file:
        return "since it would not be encrypted"
    if lacking := missing_for_onnx():
        return f"without the package {lacking}: pip install {lacking}"
    return ""


def prepare_classifier(
    recipe: Recipe, sizes: Sequence[Size], options: ExportOptions
) -> tuple[Trained, list[np.ndarray], str]:
    """What to export, samples for each size to prove it on, and where these are from."""
    for height, width in sizes:
        if height != width:
            raise UserError(
                f"export_image_size: found {height}x{width} with model {recipe.model.model}, "
                "expected an edge: a classifier takes squares"
            )
    trained, transform = restore(recipe, [edge for edge, _ in sizes])
    images, origin = proof_images(recipe, options.sample_images)
    edges = [edge for edge, _ in sizes] or [transform.image_size]
    samples = [np.stack([at_size(transform, edge)(image) for image in images]) for edge in edges]
    return trained, samples, origin


def prepare_segmenter(
    recipe: Recipe, sizes: Sequence[Size], options: ExportOptions
) -> tuple[Trained, list[np.ndarray], str]:
    """As :func:`prepare_classifier`; where no size is asked for, a square of the scale's edge."""
    check_sizes(sizes)
    name = recipe.model.model
    find_segmenter(name)
    weights = find_weights(recipe.model, Path(recipe.checkpointing.ckpt_save_dir) / "best.ckpt")
    if weights.note:
        print(f"{weights.path}: {weights.note}")
    count = recipe.model.num_classes or weights.num_classes
    network = mindcv.create_model(name, **weights.settings | {"num_classes": count})
    load_weights(network, weights)
    trained = trained_segmenter(network, name, weights, eval_transform_of_scenes(recipe))
    folder = Path(recipe.data.data_dir) / IMAGES / recipe.data.val_split
    pictures, origin = proof_pictures(folder, options.sample_images)
    return trained, scenes_at(trained, sizes, pictures), origin


def prepare_detector(
    recipe: Recipe, sizes: Sequence[Size], options: ExportOptions
) -> tuple[Trained, Sequence[Samples], str]:
    """As :func:`prepare_classifier`; without sizes two canvases, a wide one and a high one."""
    name = recipe.model.model
    find_detector(name)
    weights = find_weights(recipe.model, Path(recipe.checkpointing.ckpt_save_dir) / "best.ckpt")
    if weights.note:
        print(f"{weights.path}: {weights.note}")
    network = restored_detector(recipe, weights)
    trained = trained_detector(network, name, weights, eval_transform_of_pictures(recipe))
    transform = trained.transform
    assert isinstance(transform, PictureTransform)
    sizes = graph_sizes(sizes, transform)
    folder = Path(recipe.data.data_dir) / recipe.data.val_split
    pictures, origin = proof_pictures(folder, options.sample_images)
    return trained, pictures_at(transform, sizes, pictures), origin


PREPARATIONS: dict[str, Preparation] = {
    "classification": prepare_classifier,
    "segmentation": prepare_segmenter,
    "detection": prepare_detector,
}


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
            f"{proof['file_format']} at {shown_size(as_size(proof['image_size']))} px: "
            f"{proof['compared']} on {proof['images']} images within "
            f"{proof['max_abs_difference']:.2g} of the checkpoint's (allowed "
            f"{proof['tolerance']:.2g}), {agreement(proof)}"
        )


def agreement(proof: dict[str, Any]) -> str:
    """On what share the classes are those of the checkpoint, or how many objects there are."""
    if "objects" in proof:
        return f"{proof['objects']} objects"
    if "label_agreement" in proof:
        return f"labels equal on {proof['label_agreement']:.3%} of the places"
    return f"top-1 equal on {proof['top1_agreement']:.1%}"


def restore(recipe: Recipe, edges: Sequence[int]) -> tuple[Trained, EvalTransform]:
    """The recipe's classifier with the weights of its checkpoint, and how images are prepared."""
    name = recipe.model.model
    check_image_size(name, recipe.augmentation.image_resize)
    for edge in edges:
        check_image_size(name, edge, "export_image_size")
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
    if edges:
        transform = at_size(transform, edges[0])
    return Trained(network, name, weights.path, transform, classes), transform


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
    return with_numbers(names, count)


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
