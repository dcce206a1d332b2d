"""Classify or segment images, or find objects, with an exported bundle alone: no checkpoint.

python predict.py --bundle runs/digits/bundle data/digits/val/7 photo.png --top_k 3

A segmenter's bundle writes for each image a PNG with the class of each pixel, in the data set's own
numbers, and the image under the classes' colours, both into --output_dir. A detector's writes the
image with the objects whose scores exceed --threshold.
"""

from __future__ import annotations

import mindcv_poolformer  # noqa: F401  sets the CPU up, before MindSpore is imported

# isort: split

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mindcv_poolformer.data.detection.objects import THRESHOLD
from mindcv_poolformer.data.folder import find_images
from mindcv_poolformer.data.preprocess import open_image, silence_pillow
from mindcv_poolformer.export.bundle import Bundle, load_bundle, load_graph
from mindcv_poolformer.export.description import (
    CLASSIFICATION,
    DETECTION,
    SEGMENTATION,
    Description,
    read_description,
)
from mindcv_poolformer.export.detector import load_detector_bundle
from mindcv_poolformer.export.golden import self_test
from mindcv_poolformer.export.golden_objects import self_test_objects
from mindcv_poolformer.export.image_size import Size, read_size
from mindcv_poolformer.export.label_files import write_label_files
from mindcv_poolformer.export.object_files import write_object_files
from mindcv_poolformer.export.runtimes import RUNTIMES, chosen, set_up
from mindcv_poolformer.export.segmenter import load_segmenter_bundle
from mindcv_poolformer.runtime.arguments import OneLineParser, at_least_one, fraction
from mindcv_poolformer.runtime.errors import UserError, run

BATCH_SIZE = 16
OUTPUT_DIR = "predictions"
TOP_K = 5


def parse_arguments() -> argparse.Namespace:
    parser = OneLineParser(
        description="Classify or segment images, or find objects, with an exported bundle.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("images", nargs="*", help="image files, or folders searched for images")
    parser.add_argument("--bundle", default="runs/digits/bundle", help="folder export.py wrote")
    parser.add_argument(
        "--self_test",
        action="store_true",
        help="compare the bundle's answers to its golden images with the checkpoint's, no more",
    )
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        default="auto",
        help="what runs the bundle: onnx is ONNX Runtime, on the CPU alone; auto takes that where "
        "it can run the bundle, and mindspore elsewhere",
    )
    parser.add_argument(
        "--image_size",
        type=image_size,
        help="one of the bundle's, such as 512 or 512x683 (height x width); if not given, a "
        "classifier's first, and of others' the one whose shape is nearest to the image's",
    )
    parser.add_argument("--dec_key_file", help="file with the key of an encrypted bundle")
    parser.add_argument(
        "--top_k",
        type=at_least_one,
        help=f"classes for each image, {TOP_K} if not given; of a detector objects, all if not",
    )
    parser.add_argument(
        "--output_dir",
        help=f"folder for what a segmenter or detector writes, {OUTPUT_DIR} if not given",
    )
    parser.add_argument(
        "--threshold",
        type=fraction,
        help=f"scores that a detector's objects exceed, {THRESHOLD} if not given",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON list alone")
    parser.add_argument(
        "--batch_size",
        type=at_least_one,
        help=f"images in one run of a classifier, {BATCH_SIZE} if not given",
    )
    parser.add_argument("--device_target", choices=["CPU", "Ascend"], default="CPU", help="device")
    arguments = parser.parse_args()
    if arguments.self_test and (arguments.images or arguments.json):
        parser.error("found images or --json with --self_test, expected it alone")
    if not arguments.images and not arguments.self_test:
        parser.error("the following arguments are required: images")
    return arguments


def image_size(text: str) -> Size:
    """Read an edge, or height x width, for ``type=`` of an argument."""
    try:
        return read_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main() -> None:
    arguments = parse_arguments()
    paths = find_images(arguments.images)
    description = read_description(arguments.bundle)
    check_task(arguments, description)
    arguments.runtime = chosen(description, arguments.runtime, arguments.device_target)
    set_up(arguments.runtime, arguments.device_target)
    if arguments.self_test:
        test_bundle(arguments, description)
        return
    answers = {SEGMENTATION: segment_files, DETECTION: detect_files}
    answer = answers.get(description.task, classify_files)
    silence_pillow()
    results = []
    for result in answer(arguments, paths):
        results.append(result)
        if "error" in result:
            print("error:", *result["error"].splitlines(), file=sys.stderr)
        elif not arguments.json:
            print(describe(result))
    if arguments.json:
        # An image a line: masks are thousands of numbers.
        lines = [json.dumps(result, ensure_ascii=False) for result in results]
        print("[", ",\n".join(lines), "]", sep="\n")
    if any("error" in result for result in results):
        sys.exit(1)  # once the others have their answers


def check_task(arguments: argparse.Namespace, description: Description) -> None:
    """Refuse a flag that is for the other task.

    Raises:
        UserError: names it.
    """
    for name, tasks in (
        ("batch_size", (CLASSIFICATION,)),
        ("output_dir", (SEGMENTATION, DETECTION)),
        ("threshold", (DETECTION,)),
    ):
        found = getattr(arguments, name)
        if found is not None and description.task not in tasks:
            raise UserError(
                f"{name}: found {found} with {arguments.bundle}, a bundle of {description.task}, "
                f"expected it with one of {' or '.join(tasks)}"
            )


def test_bundle(arguments: argparse.Namespace, description: Description) -> None:
    """Run the self test of each image size, or of the one that is asked for."""
    test = self_test_objects if description.task == DETECTION else self_test
    sizes = [arguments.image_size] if arguments.image_size else description.image_sizes
    for size in sizes:
        graph = load_graph(
            description,
            size,
            runtime=arguments.runtime,
            key_file=arguments.dec_key_file,
        )
        print(test(graph))


def describe(result: dict[str, Any]) -> str:
    """What is said of an image."""
    if "objects" in result:
        found = [
            f"  {row['score']:7.2%}  {row['class']}  at {' '.join(f'{x:.0f}' for x in row['box'])}"
            for row in result["objects"]
        ]
        return "\n".join([f"{result['image']}: {result['files']['overlay']}", *found])
    if "files" not in result:
        rows = [(row["probability"], row["class"]) for row in result["predictions"]]
        head = result["image"]
    else:
        rows = [(row["share"], row["class"]) for row in result["classes"]]
        head = f"{result['image']}: {', '.join(result['files'].values())}"
    return "\n".join([head, *(f"  {part:7.2%}  {name}" for part, name in rows)])


def classify_files(arguments: argparse.Namespace, paths: list[Path]) -> Iterator[dict[str, Any]]:
    """As :func:`predict`, by the bundle that is asked for."""
    bundle = load_bundle(
        arguments.bundle,
        image_size=arguments.image_size,
        runtime=arguments.runtime,
        key_file=arguments.dec_key_file,
    )
    yield from predict(bundle, paths, arguments.batch_size or BATCH_SIZE, arguments.top_k or TOP_K)


def segment_files(arguments: argparse.Namespace, paths: list[Path]) -> Iterator[dict[str, Any]]:
    """As :func:`write_label_files`, with the ``top_k`` largest classes alone."""
    bundle = load_segmenter_bundle(
        arguments.bundle,
        image_size=arguments.image_size,
        runtime=arguments.runtime,
        key_file=arguments.dec_key_file,
    )
    for result in write_label_files(bundle, paths, Path(arguments.output_dir or OUTPUT_DIR)):
        if "classes" in result:
            result["classes"] = result["classes"][: arguments.top_k or TOP_K]
        yield result


def detect_files(arguments: argparse.Namespace, paths: list[Path]) -> Iterator[dict[str, Any]]:
    """As :func:`write_object_files`, by the bundle that is asked for."""
    bundle = load_detector_bundle(
        arguments.bundle,
        image_size=arguments.image_size,
        runtime=arguments.runtime,
        key_file=arguments.dec_key_file,
    )
    threshold = THRESHOLD if arguments.threshold is None else arguments.threshold
    folder = Path(arguments.output_dir or OUTPUT_DIR)
    return write_object_files(bundle, paths, folder, threshold, arguments.top_k)


def run_size(images: int, batch_size: int) -> int:
    """Images in each run, at most ``batch_size``: as few runs as need be, and those nearly full.

    All runs are of one size, so that the network compiles once; the last is filled up to it.
    """
    return math.ceil(images / math.ceil(images / batch_size))


def predict(
    bundle: Bundle, paths: list[Path], batch_size: int, top_k: int
) -> Iterator[dict[str, Any]]:
    """For each path in turn, the ``top_k`` most probable classes, or why it cannot be read.

    An image is read once its batch is due; an unreadable one leaves the others of its batch alone.
    """
    size = run_size(len(paths), batch_size)
    for start in range(0, len(paths), size):
        opened = [_open(path, bundle.channels) for path in paths[start : start + size]]
        images = [image for image in opened if isinstance(image, Image.Image)]
        rows = iter(bundle.classify(images, size) if images else ())
        for path, image in zip(paths[start : start + size], opened, strict=True):
            if isinstance(image, UserError):
                yield {"image": str(path), "error": str(image)}
                continue
            row = next(rows)
            best = np.argsort(-row, kind="stable")[:top_k]
            yield {
                "image": str(path),
                "predictions": [
                    {"index": int(i), "class": bundle.classes[i], "probability": float(row[i])}
                    for i in best
                ],
            }


def _open(path: Path, channels: int) -> Image.Image | UserError:
    try:
        return open_image(path, channels)
    except UserError as error:
        return error


if __name__ == "__main__":
    run(main)
