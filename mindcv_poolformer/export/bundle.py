"""A bundle: a folder with a MINDIR and, in model.json, all it takes to classify images with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from PIL import Image

from ..data.preprocess import EvalTransform
from ..runtime.errors import UserError
from ..runtime.mindspore_log import logged_on_success

FORMAT = 1  # of model.json; counts up when an older reader would misread it
DESCRIPTION = "model.json"
MINDIR = "model.mindir"


@dataclass(frozen=True, eq=False)
class Bundle:
    """A loaded bundle, ready to classify.

    Attributes:
        folder: where it was read from.
        model: name of the model, such as poolformer_s12.
        classes: name of each output.
        transform: from an image to the network's input.
        batch_size: the only one the network takes, None for any.
        precision: fp32 or fp16, of weights and arithmetic; input and logits are always float32.
        network: the MINDIR.
    """

    folder: Path
    model: str
    classes: tuple[str, ...]
    transform: EvalTransform
    batch_size: int | None
    precision: str
    network: nn.GraphCell

    @property
    def channels(self) -> int:
        """Channels of the images: 1 grey, 3 RGB, 4 RGBA."""
        return len(self.transform.mean)

    def logits(self, images: np.ndarray, batch_size: int | None = None) -> np.ndarray:
        """Run the network on normalised images.

        Args:
            images: (N, C, H, W) float32 with N >= 1.
            batch_size: images in one run; the last run is filled up with zeros, since the network
                compiles anew for every batch size it meets. None: all in one run. A bundle of a
                fixed batch size runs at that, whatever is given.

        Returns:
            (N, classes) float32.
        """
        edge = self.transform.image_size
        if len(images) == 0 or images.shape[1:] != (self.channels, edge, edge):
            raise ValueError(f"images: found {images.shape}, expected (N, C, {edge}, {edge})")
        size = self.batch_size or batch_size or len(images)
        rows = []
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            padding = ((0, size - len(batch)), (0, 0), (0, 0), (0, 0))
            rows.append(self.network(Tensor(np.pad(batch, padding))).asnumpy()[: len(batch)])
        return np.concatenate(rows)

    def classify(self, images: Sequence[Image.Image], batch_size: int | None = None) -> np.ndarray:
        """Give the probability of each class, (N, classes) float64, for images of any size.

        ``batch_size`` is as in :meth:`logits`. The images have ``channels`` channels, as
        ``open_image(path, channels)`` gives them.
        """
        logits = self.logits(np.stack([self.transform(image) for image in images]), batch_size)
        powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)


def load_bundle(folder: str | Path) -> Bundle:
    """Read a bundle that export.py has written, for the device that MindSpore is set to.

    Raises:
        UserError: the folder is no bundle, is damaged (its MINDIR is checked against the SHA-256)
            or was written by a later version.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"bundle {folder}: found no such folder, expected one that export.py wrote")
    path = folder / DESCRIPTION
    description = _read_description(path)
    try:
        checksum = description["files"][MINDIR]["sha256"]
        written_with = description["mindspore"]
        outputs = description["output"]["shape"][-1]
        facts = {
            "model": description["model"],
            "classes": tuple(description["classes"]),
            "transform": EvalTransform.from_dict(description["preprocessing"]),
            "batch_size": description["input"]["shape"][0],
            "precision": description["precision"],
        }
    except KeyError as error:
        raise UserError(f"{path}: found no key {error}, expected it") from None
    except (IndexError, TypeError, UserError) as error:
        raise UserError(f"{path}: found a malformed value ({error})") from None
    classes, batch_size = facts["classes"], facts["batch_size"]
    if outputs != len(classes):
        raise UserError(f"{path}: found {len(classes)} classes for {outputs} outputs")
    if batch_size is not None and not (isinstance(batch_size, int) and batch_size >= 1):
        raise UserError(f"{path}: found batch size {batch_size!r}, expected a count or null")
    _check_file(folder / MINDIR, checksum)
    return Bundle(folder=folder, network=_load_mindir(folder / MINDIR, written_with), **facts)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"{path}: found {error.strerror!r}, expected the description of a bundle"
        ) from None
    except ValueError as error:  # not UTF-8, or not JSON
        raise UserError(f"{path}: found no readable JSON ({error}), expected a bundle's") from None
    version = description.get("format") if isinstance(description, dict) else None
    if not isinstance(version, int) or version < 1:
        raise UserError(f"{path}: found format {version!r}, expected {FORMAT}")
    if version > FORMAT:
        raise UserError(
            f"{path}: found format {version}, expected at most {FORMAT}: "
            "a later version of mindcv_poolformer wrote it"
        )
    return description


def _check_file(path: Path, expected: str) -> None:
    if not path.is_file():
        raise UserError(f"{path}: found no such file, expected it beside {DESCRIPTION}")
    found = sha256(path)
    if found != expected:
        raise UserError(f"{path}: found SHA-256 {found}, expected {expected}: damaged or replaced")


def _load_mindir(path: Path, written_with: str) -> nn.GraphCell:
    try:
        with logged_on_success():
            return nn.GraphCell(ms.load(str(path)))
    except (RuntimeError, ValueError):
        raise UserError(
            f"{path}: found no MINDIR that MindSpore {ms.__version__} can load, "
            f"expected one; it was written with {written_with}"
        ) from None
