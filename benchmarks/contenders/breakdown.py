"""Where the time goes in this project: a call by kinds of kernels, an image by steps.

One JSON object goes to --outputs.
"""

from __future__ import annotations

from benchmarks.contenders import ours  # first: it sets the CPU up, before MindSpore is imported

# isort: split
import argparse
import csv
import dataclasses
import functools
import json
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import mindspore as ms
import numpy as np

from benchmarks.contenders.serve import parser
from mindcv_poolformer.data import transforms
from mindcv_poolformer.data.folder import find_images
from mindcv_poolformer.data.preprocess import open_image

CALLS = 10
PASSES = 4  # over the photographs
# Of kernels by their names; the first that fits counts.
KINDS = {
    "matrix products": r"MatMul",
    "GELU": r"Abs.*Reciprocal|Reciprocal.*Abs",
    "copies": r"Slice|Concat|Transpose|BroadcastTo|Tile",
    "sums": r"Reduce",
    "optimizer": r"Adam",
    "other": r"",
}


def kernels(call: Callable[[], object]) -> dict[str, dict[str, float]]:
    """Give milliseconds and kernels of one call, by kind."""
    found = {kind: {"ms": 0.0, "kernels": 0.0} for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        profiler = ms.Profiler(output_path=folder, start_profile=False)
        profiler.start()
        for _ in range(CALLS):
            call()
        profiler.stop()
        profiler.analyse()
        (table,) = Path(folder).rglob("cpu_op_type_info_*.csv")
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file))
    for row in rows:
        kind = next(kind for kind, name in KINDS.items() if re.search(name, row["op_type"]))
        found[kind]["ms"] += float(row["total_compute_time"]) / CALLS
        found[kind]["kernels"] += int(row["type_occurrences"]) / CALLS
    return found


def steps(given: argparse.Namespace) -> dict[str, float]:
    """Give the milliseconds of each step of a training image, alone on one core.

    Each is the difference between two transforms, one of which has the step.
    """
    augmentation = ours.recipe(given).augmentation
    whole = transforms.train_transform(augmentation)
    paths = find_images([str(given.photographs)])
    images = [open_image(path) for path in paths]

    def milliseconds(run: Callable[[int], object]) -> float:
        taken = []
        for number in range(PASSES):
            start = time.perf_counter()
            for index in range(len(paths)):
                run(index + number * len(paths))
            taken.append((time.perf_counter() - start) / len(paths) * 1e3)
        return min(taken)

    def augment(transform: Callable, index: int) -> None:
        transform(images[index % len(paths)], np.random.default_rng(index))

    plain = dataclasses.replace(whole, rand_augment=None)
    decode = milliseconds(lambda index: open_image(paths[index % len(paths)]))
    crop = milliseconds(functools.partial(augment, plain))
    both = milliseconds(functools.partial(augment, whole))
    return {"decode": decode, "crop, resize and flip": crop, "RandAugment": both - crop}


def main() -> None:
    given = parser({"breakdown"}).parse_args()
    calls = {
        "deploy form, batch 8": ours.deploy(given).prepare(8, 224),
        "deploy form, batch 1": ours.deploy(given).prepare(1, 224),
        "training step, batch 8": ours.training(given).prepare(8, 224),
    }
    found: dict[str, object] = {"steps of an image": steps(given)}
    for what, call in calls.items():
        call(), call()  # the first ones compile
        found[what] = kernels(call)
    given.outputs.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
