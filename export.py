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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jsonargparse.typing import PositiveInt

from mindcv_poolformer.config import GraphSize, PathText, parse_recipe, shown
from mindcv_poolformer.export.choices import Choices, missing_for_onnx
from mindcv_poolformer.export.description import CLASSIFICATION, MINDIR, ONNX, precision_in
from mindcv_poolformer.export.image_size import as_size, read_size
from mindcv_poolformer.export.image_size import shown as shown_size
from mindcv_poolformer.export.int8 import INT8_WITH_FP32
from mindcv_poolformer.export.mindir import write_bundle
from mindcv_poolformer.export.proof import UnprovenError
from mindcv_poolformer.runtime.counted import counted
from mindcv_poolformer.runtime.device import set_up_device
from mindcv_poolformer.runtime.errors import UserError, run
from mindcv_poolformer.runtime.launch import World
from mindcv_poolformer.tasks.exporting import int8_images, prepare

DEMO = Path(__file__).parent / "configs" / "poolformer_s12_digits.yaml"


@dataclass(frozen=True)
class ExportOptions:
    """export: what to write

    Args:
        export_dir: folder of the bundle, empty for <ckpt_save_dir>/bundle. The weights are those
            of ckpt_path, empty for <ckpt_save_dir>/best.ckpt.
        deploy: write the deploy form, whose norms and layer scales are folded into the weights;
            null does unless its proof fails, which is said.
        precision: of weights and arithmetic; fp16 halves the file. int8 is of a classifier's
            model.onnx, which CPUs with VNNI run quicker; its MINDIR is fp32. Input and logits stay
            float32.
        calibration_images: image or folder of images to find the ranges of INT8 with, at most 128
            evenly over it; empty for those of the training split. Only for int8.
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
            segmenter or detector 2, and int8 on 1,000, evenly over it; empty for images of the
            validation split, or where there is no data_dir, and not for int8, for the two
            photographs that scikit-learn ships, or crops of them, which is said.
        overwrite: replace an existing bundle once the new one is proven.
    """

    export_dir: PathText = ""
    deploy: bool | None = None
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    calibration_images: PathText = ""
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
    int8 = options.precision == "int8"
    if options.calibration_images and not int8:
        raise UserError(
            f"calibration_images: found it with precision {options.precision}, expected int8"
        )
    if int8 and options.file_format is None:
        options = dataclasses.replace(options, file_format="ONNX")  # what is quantised
    flash_attention = bool(system.flash_attention)
    choices = choose(options, flash_attention)
    choices.check()
    set_up_device(system.device_target, system.mode, system.jit_level, World())
    sizes = tuple(dict.fromkeys(map(read_size, options.export_image_size)))
    trained, (samples, *further), origin = prepare(recipe, sizes, options.sample_images)
    images = None
    if int8 and trained.task == CLASSIFICATION:
        images = int8_images(recipe, trained, options.calibration_images, options.sample_images)
    target = Path(options.export_dir or Path(recipe.checkpointing.ckpt_save_dir) / "bundle")
    write = functools.partial(
        write_bundle,
        trained,
        target,
        samples,
        further=further,
        origin=origin,
        int8=images,
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


def report(target: Path, description: dict[str, Any], seconds: float) -> None:
    """Tell what was written and how it was proven."""
    size = {name: f"{file['size'] / 1e6:.1f} MB" for name, file in description["files"].items()}
    precision = description["precision"]
    print(
        f"{target / MINDIR}: {description['model']} in {precision_in('mindspore', precision)}, "
        f"{description['form']} form, {size[MINDIR]}, {seconds:.0f} s"
    )
    if precision == "int8":
        print(f"{target / ONNX}: the same in int8, {size[ONNX]}")
    several = [name for name in description["graphs"] if name != MINDIR]
    if several:
        print(f"beside it: {', '.join(several)}")
    for proof in description["verification"]:
        if proof["compared"] == INT8_WITH_FP32:
            print(cost_of_int8(proof))
            continue
        print(
            f"{proof['file_format']} at {shown_size(as_size(proof['image_size']))} px: "
            f"{proof['compared']} on {counted(proof['images'], 'image')} within "
            f"{proof['max_abs_difference']:.2g} of the checkpoint's (allowed "
            f"{proof['tolerance']:.2g}), {agreement(proof)}"
        )


def cost_of_int8(proof: dict[str, Any]) -> str:
    """What INT8 gives beside fp32 in ONNX Runtime."""
    accuracies = ""
    if top1 := proof.get("top1"):
        accuracies = f", top-1 {top1['int8']:.2f} % and {top1['fp32']:.2f} %"
    return (
        f"{proof['compared']} at {proof['image_size']} px: top-1 equal on "
        f"{proof['top1_agreement']:.1%} of {counted(proof['images'], 'image')}{accuracies}"
    )


def agreement(proof: dict[str, Any]) -> str:
    """On what share the classes are those of the checkpoint, or how many objects there are."""
    if "objects" in proof:
        return counted(proof["objects"], "object")
    if "label_agreement" in proof:
        return f"labels equal on {proof['label_agreement']:.3%} of the places"
    return f"top-1 equal on {proof['top1_agreement']:.1%}"


if __name__ == "__main__":
    run(main)
