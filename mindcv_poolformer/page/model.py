"""What the page asks: a bundle for its answers, and a checkpoint for the reasons."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from ..export.bundle import DESCRIPTION, Bundle, load_bundle
from ..export.runtimes import Runtime, set_up
from ..runtime.environment import is_installed
from ..runtime.errors import UserError
from ..runtime.files import sha256
from ..runtime.image_modes import MODES
from .device import load_on_device, on_device, timed_on_device

if TYPE_CHECKING:  # else imported where it is wanted: a bundle does without MindSpore
    from ..explaining.gradcam import GradCam


@dataclass(frozen=True, eq=False)
class Answer:
    """Of the network to one image.

    Args:
        probabilities: of each class, (classes,).
        prepare_seconds: that reading pixels into the network's input took.
        run_seconds: that the network took.
    """

    probabilities: np.ndarray
    prepare_seconds: float
    run_seconds: float


@dataclass(frozen=True, eq=False)
class PageModel:
    """A bundle, warmed up; and the network it was exported from, if its checkpoint is given.

    Any thread may call it: bundle and network run in the thread of ``DEVICE`` alone.
    """

    bundle: Bundle
    cam: GradCam | None

    @property
    def names(self) -> list[str]:
        """One name for each class, each of them once."""
        times = Counter(self.bundle.classes)
        numbered = enumerate(self.bundle.classes)
        return [f"{name} ({i})" if times[name] > 1 else name for i, name in numbered]

    def classify(self, image: Image.Image) -> Answer:
        """Ask the bundle."""
        started = time.perf_counter()
        pixels = self.bundle.prepare([image])
        prepared = time.perf_counter()
        (row,), seconds = timed_on_device(lambda: self.bundle.probabilities(pixels))
        return Answer(row, prepared - started, seconds)

    def explain(self, image: Image.Image, label: int) -> np.ndarray:
        """The Grad-CAM map of a class, (h, w) float32.

        Raises:
            ValueError: there is no checkpoint to ask.
        """
        cam = self.cam
        if cam is None:
            raise ValueError("explain: found no checkpoint, expected one")
        pixels = self.bundle.transform(image)[None]
        return on_device(lambda: cam.maps(pixels, [label])[0])


def load_page_model(
    folder: str | Path,
    ckpt_path: str | Path | None = None,
    *,
    runtime: Runtime = "auto",
    device_target: Literal["Ascend", "CPU"] = "CPU",
    key_file: str | Path | None = None,
) -> PageModel:
    """Load a bundle and, for Grad-CAM, its checkpoint; compile both.

    Raises:
        UserError: either cannot be read, the bundle was exported from another checkpoint, or a
            checkpoint is given where MindSpore is not installed.
    """
    if ckpt_path is not None and not is_installed("mindspore"):
        raise UserError(
            f"--ckpt_path: found {ckpt_path} and no package mindspore, which it wants for "
            "Grad-CAM, expected both or neither: pip install -r requirements.txt"
        )

    bundle = load_on_device(
        load_bundle, folder, runtime=runtime, device_target=device_target, key_file=key_file
    )

    def load_cam(path: Path) -> GradCam:
        set_up("mindspore", device_target)  # which explains, whatever answers
        return _load_cam(bundle, path)

    cam = None if ckpt_path is None else on_device(partial(load_cam, Path(ckpt_path)))
    model = PageModel(bundle, cam)
    edge = model.bundle.transform.image_size
    blank = Image.new(MODES[model.bundle.channels], (edge, edge))
    model.classify(blank)
    if model.cam is not None:
        model.explain(blank, 0)
    return model


def _load_cam(bundle: Bundle, path: Path) -> GradCam:
    from ..explaining.gradcam import GradCam, stage_for
    from ..weights import network_of, read_weights

    if not path.is_file():
        raise UserError(f"{path}: found no such file, expected the bundle's checkpoint")
    told = json.loads((bundle.folder / DESCRIPTION).read_text())["checkpoint"]
    if sha256(path) != told["sha256"]:
        raise UserError(
            f"{path}: found another checkpoint than the one that the bundle {bundle.folder} was "
            f"exported from, expected its {told['name']} with SHA-256 {told['sha256']}"
        )
    weights = read_weights(path)
    weights.check_kind("classifier")
    return GradCam(network_of(weights), stage_for(bundle.transform.image_size))
