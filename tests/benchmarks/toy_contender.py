"""Contenders that compute nothing, to try the benchmark's processes on."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.contenders.serve import Call, Unavailable, Workload, serve


def noting(given: argparse.Namespace) -> Workload:
    """Each call notes its name in a file of all contenders, and what the environment holds."""
    Path(given.photographs, f"{given.model}.env").write_text("\n".join(os.environ))

    def prepare(batch: int, size: int) -> Call:
        def call() -> np.ndarray:
            print("libraries print what they like")
            with Path(given.photographs, "turns").open("a") as turns:
                turns.write(f"{given.model}\n")
            time.sleep(0.05)
            return np.full((batch, 2), size, np.float32)

        return call

    return Workload(prepare, warm_up=1)


def spinning(given: argparse.Namespace) -> Workload:
    """A thread keeps a core busy for ever, as idle libraries' do."""

    def spin() -> None:
        while True:
            pass

    threading.Thread(target=spin, daemon=True).start()
    return noting(given)


def dying(given: argparse.Namespace) -> Workload:
    """The second call ends the process."""
    calls = iter(range(9))

    def call() -> np.ndarray:
        if next(calls) == 1:
            print("a line", "the reason", sep="\n", file=sys.stderr)
            os._exit(3)
        return np.zeros((1, 2), np.float32)

    return Workload(lambda batch, size: call, warm_up=1)


def missing(given: argparse.Namespace) -> Workload:
    """What the machine has no compiler for."""
    raise Unavailable("toy: found no compiler, expected one")


if __name__ == "__main__":
    serve({"noting": noting, "spinning": spinning, "dying": dying, "missing": missing})
