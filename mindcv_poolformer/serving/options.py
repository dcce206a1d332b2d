"""What model-settings.json tells of a bundle at work."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..data.pixels import MOST_PIXELS
from ..export.runtimes import RUNTIMES, Runtime
from ..runtime.errors import UserError


@dataclass(frozen=True)
class Options:
    """`parameters.extra` of model-settings.json.

    Args:
        max_batch_size: images that a classifier runs at once: in one run, or in ONNX Runtime on
            several cores in one on each.
        max_batch_time: seconds that its request waits for company at most; 0 for no waiting. In
            ONNX Runtime on several cores none waits.
        batch_sizes: that a classifier is compiled for before the model is ready; others are put
            together of these. Empty for 1, 2, 4, ... max_batch_size, or the bundle's own.
        max_images: in one request, which has at most `max_queue` too; more are answered with 413.
        max_pixels: of an image, as it comes and as it is resized.
        max_queue: images under way at once; a request that would exceed it now is answered with
            429.
        device_target: CPU or Ascend.
        runtime: what runs the bundle, see ``load_bundle``.
        key_file: holds the key of an encrypted bundle.
    """

    max_batch_size: int = 1
    max_batch_time: float = 0.0
    batch_sizes: tuple[int, ...] = field(default=())
    max_images: int = 64
    max_pixels: int = MOST_PIXELS
    max_queue: int = 256
    device_target: Literal["CPU", "Ascend"] = "CPU"
    runtime: Runtime = "auto"
    key_file: str | None = None

    def __post_init__(self) -> None:
        for name in ("max_batch_size", "max_images", "max_pixels", "max_queue"):
            _check(name, getattr(self, name), 1)
        for size in self.batch_sizes:
            _check("batch_sizes", size, 1)
        if not isinstance(self.max_batch_time, (int, float)) or not self.max_batch_time >= 0:
            raise UserError(f"max_batch_time: found {self.max_batch_time!r}, expected seconds >= 0")
        if self.device_target not in ("CPU", "Ascend"):
            raise UserError(f"device_target: found {self.device_target!r}, expected CPU or Ascend")
        if self.runtime not in RUNTIMES:
            expected = ", ".join(RUNTIMES)
            raise UserError(f"runtime: found {self.runtime!r}, expected one of {expected}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Options:
        """Raises UserError for an unknown key or a value without meaning."""
        known = [one.name for one in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise UserError(
                    f"parameters.extra: found {name!r}, expected one of {', '.join(known)}"
                )
        sizes = values.get("batch_sizes", ())
        if not isinstance(sizes, (list, tuple)):
            raise UserError(f"batch_sizes: found {sizes!r}, expected a list of counts")
        return cls(**{**values, "batch_sizes": tuple(sizes)})


def _check(name: str, value: Any, least: int) -> None:
    if type(value) is not int or value < least:
        raise UserError(f"{name}: found {value!r}, expected a whole number >= {least}")
