"""Bundles of the page, loaded and run in the one thread that the device has."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypedDict, TypeVar

from ..export.bundle import Load
from ..export.description import read_description
from ..export.runtimes import Runtime, chosen, set_up
from ..runtime.device_thread import DEVICE

T = TypeVar("T")


class LoadOptions(TypedDict, total=False):
    """Keywords of :func:`load_on_device`."""

    runtime: Runtime
    device_target: Literal["Ascend", "CPU"]
    key_file: str | Path | None


def load_on_device(
    load: Load[T],
    folder: str | Path,
    *,
    runtime: Runtime = "auto",
    device_target: Literal["Ascend", "CPU"] = "CPU",
    key_file: str | Path | None = None,
) -> T:
    """Read a bundle by ``load``, once the device is set up.

    Raises:
        UserError: it cannot be read, or not run here.
    """

    def read() -> T:
        taken = chosen(read_description(folder), runtime, device_target)
        set_up(taken, device_target)
        return load(folder, runtime=taken, key_file=key_file)

    return on_device(read)


def on_device(call: Callable[[], T]) -> T:
    """Call in the thread of ``DEVICE``."""
    return DEVICE.submit(call).result()


def timed_on_device(call: Callable[[], T]) -> tuple[T, float]:
    """Call in the thread of ``DEVICE``; give the seconds that it took there, too."""

    def run() -> tuple[T, float]:
        begun = time.perf_counter()
        return call(), time.perf_counter() - begun

    return on_device(run)
