"""A contender: builds, reports, then answers one command after the other until its input ends.

Commands come as JSON lines on standard input, answers go as JSON lines to a file descriptor of
their own, so that what libraries print disturbs neither. Nothing but NumPy is imported here: a
contender is to hold what its implementation brings, and no more.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

NUM_CLASSES = 1000
SMOOTHING = 0.1
QUEUED = 20  # batches; more than the queues of a pipeline hold
LEARNING_RATE = 1e-4
WEIGHT_DECAY = 0.05

# One whole call: computes and waits for the result, which it gives.
Call = Callable[[], Any]


class Unavailable(Exception):
    """This contender cannot take part on this machine; the message says why in a line."""


@dataclass(frozen=True)
class Workload:
    """What a contender does.

    Args:
        prepare: batch size and image size in pixels to the call on such a batch.
        warm_up: calls after which a new shape has settled; at least 1.
        settle: calls at the start of a round that do not count; at least 1. The caches hold another
            process's data, and the queues of a pipeline what it made while nobody counted.
    """

    prepare: Callable[[int, int], Call]
    warm_up: int = 2
    settle: int = 1


def images(batch: int, size: int) -> np.ndarray:
    """The input of every contender: (batch, 3, size, size) float32, always the same."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((batch, 3, size, size), dtype=np.float32)


def targets(batch: int) -> np.ndarray:
    """The soft targets of every training step: (batch, NUM_CLASSES) float32, always the same."""
    labels = np.random.default_rng(1).integers(NUM_CLASSES, size=batch)
    rows = np.full((batch, NUM_CLASSES), SMOOTHING / NUM_CLASSES, np.float32)
    rows[np.arange(batch), labels] += 1 - SMOOTHING
    return rows


def parser(jobs: dict[str, Any]) -> argparse.ArgumentParser:
    """The command line that all contenders share."""
    parser = argparse.ArgumentParser()
    parser.add_argument("job", choices=jobs)
    parser.add_argument("--answers", type=int, required=True, help="file descriptor")
    parser.add_argument("--outputs", type=Path, required=True, help="file for the first outputs")
    parser.add_argument("--model", default="poolformer_s12")
    parser.add_argument("--weights", type=Path, help="Hugging Face folder with model.ckpt in it")
    parser.add_argument("--photographs", type=Path, help="folder with train/<class>/<image>")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    return parser


def serve(jobs: dict[str, Callable[[argparse.Namespace], Workload]]) -> None:
    """Run the contender that the command line names.

    Args:
        jobs: by name, what builds the workload.
    """
    given = parser(jobs).parse_args()
    with os.fdopen(given.answers, "w", buffering=1) as answers:

        def answer(**content: Any) -> None:
            answers.write(json.dumps(content) + "\n")

        try:
            workload = jobs[given.job](given)
        except Unavailable as reason:
            answer(unavailable=str(reason))
            return
        answer(time=time.time())
        calls: dict[tuple[int, int], Call] = {}
        for line in sys.stdin:
            command = json.loads(line)
            shape = command["batch"], command["size"]
            if command["do"] == "prepare":
                start = time.perf_counter()
                calls[shape] = workload.prepare(*shape)
                outputs = [calls[shape]()]
                seconds = time.perf_counter() - start
                outputs += [calls[shape]() for _ in range(workload.warm_up - 1)]
                np.save(given.outputs, np.array([o for o in outputs if o is not None]))
                answer(seconds=seconds)
            else:
                taken = time_round(calls[shape], command["seconds"], workload.settle)
                answer(seconds=taken, peak=peak_memory())


def time_round(call: Call, seconds: float, settle: int = 1) -> list[float]:
    """Time calls until they have taken that many seconds, and give the seconds of each.

    The first ``settle`` calls do not count. A call that alone takes as long as a round has nothing
    to settle, and does.
    """
    first = _time(call)
    if first >= seconds:
        return [first]
    for _ in range(settle - 1):
        call()
    taken: list[float] = []
    while sum(taken) < seconds:
        taken.append(_time(call))
    return taken


def _time(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak_memory() -> int:
    """The most memory that this process has had resident at any time, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise LookupError("/proc/self/status: found no VmHWM, expected one")
