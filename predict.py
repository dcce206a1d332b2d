"""Classify images with an exported bundle alone: no checkpoint, no model code.

python predict.py --bundle runs/digits/bundle data/digits/val/7 photo.png --top_k 3
"""

from __future__ import annotations

import mindcv_poolformer  # noqa: F401  sets the CPU up, before MindSpore is imported

# isort: split

import argparse
import functools
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mindcv_poolformer.data.folder import find_images
from mindcv_poolformer.data.preprocess import open_image, silence_pillow
from mindcv_poolformer.export.bundle import Bundle, load_bundle
from mindcv_poolformer.export.description import read_description
from mindcv_poolformer.export.golden import self_test
from mindcv_poolformer.runtime.arguments import OneLineParser, at_least_one
from mindcv_poolformer.runtime.device import set_up_device
from mindcv_poolformer.runtime.errors import UserError, run
from mindcv_poolformer.runtime.launch import World


def parse_arguments() -> argparse.Namespace:
    parser = OneLineParser(
        description="Classify images with an exported bundle.",
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
        "--file_format", choices=["MINDIR", "ONNX"], default="MINDIR", help="graph to run"
    )
    parser.add_argument(
        "--image_size", type=at_least_one, help="one of the bundle's, its first if not given"
    )
    parser.add_argument("--dec_key_file", help="file with the key of an encrypted bundle")
    parser.add_argument("--top_k", type=at_least_one, default=5, help="classes for each image")
    parser.add_argument("--json", action="store_true", help="print one JSON list alone")
    parser.add_argument("--batch_size", type=at_least_one, default=16, help="images in one run")
    parser.add_argument("--device_target", choices=["CPU", "Ascend"], default="CPU", help="device")
    arguments = parser.parse_args()
    if arguments.self_test and (arguments.images or arguments.json):
        parser.error("found images or --json with --self_test, expected it alone")
    if not arguments.images and not arguments.self_test:
        parser.error("the following arguments are required: images")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    paths = find_images(arguments.images)
    set_up_device(arguments.device_target, 0, None, World())
    load = functools.partial(
        load_bundle,
        arguments.bundle,
        file_format=arguments.file_format,
        key_file=arguments.dec_key_file,
    )
    if arguments.self_test:
        sizes = read_description(arguments.bundle).image_sizes
        for size in [arguments.image_size] if arguments.image_size else sizes:
            print(self_test(load(image_size=size)))
        return
    bundle = load(image_size=arguments.image_size)
    silence_pillow()
    results = []
    for result in predict(bundle, paths, arguments.batch_size, arguments.top_k):
        results.append(result)
        if "error" in result:
            print("error:", *result["error"].splitlines(), file=sys.stderr)
        elif not arguments.json:
            print(result["image"])
            for row in result["predictions"]:
                print(f"  {row['probability']:7.2%}  {row['class']}")
    if arguments.json:
        print(json.dumps(results, indent=2, ensure_ascii=False))
    if any("error" in result for result in results):
        sys.exit(1)  # once the others have their answers


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
