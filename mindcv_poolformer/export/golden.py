"""The golden pair: images and what the checkpoint says of them, to check an installation with."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.preprocess import normalize
from ..runtime.counted import counted
from ..runtime.errors import UserError
from .bundle import LoadedGraph, log_probabilities, softmax
from .description import AnyTransform, Description, read_description
from .image_size import Size, map_size, shown
from .runtimes import told

MOST_IMAGES = 4  # in the file
MOST_SCENES = 1  # with the logits of each place: 10 MB at 512 px and 150 classes

# The largest difference that passes: absolute for fp32, where the deploy form rounds otherwise; for
# the others a part of the range of the checkpoint's logits. fp16 measures 0.002 of the range on
# poolformer_s12 and 0.005 on poolformer_m48, layer scales at 0.3. int8 measures 0.011 on the demo,
# and with random weights 0.019 on poolformer_s12 and 0.034 on poolformerv2_s12.
FP32_TOLERANCE = 1e-4
FP16_TOLERANCE = 2e-2
INT8_TOLERANCE = 1e-1
_PARTS = {"fp16": FP16_TOLERANCE, "int8": INT8_TOLERANCE}

AGREEMENT = {2: "top-1", 4: "labels"}  # by the number of the logits' axes


@dataclass(frozen=True, eq=False)
class Golden:
    """Images at the network's size, and the checkpoint's answer.

    Args:
        pixels: (N, H, W, C) uint8.
        images: (N, C, H, W) float32, the same normalised.
        logits: (N, classes) float32; of a segmenter (N, classes, h, w).
        probabilities: (N, classes) float64; None of a segmenter.
    """

    pixels: np.ndarray
    images: np.ndarray
    logits: np.ndarray
    probabilities: np.ndarray | None

    @property
    def size(self) -> Size:
        """Height and width of the images."""
        return self.images.shape[2], self.images.shape[3]

    @classmethod
    def of(cls, images: np.ndarray, transform: AnyTransform, logits: np.ndarray) -> Golden:
        """The pair for normalised images (N, C, H, W), and the checkpoint's logits of them.

        Raises:
            ValueError: the images do not come of 8-bit pixels through ``transform``.
        """
        probabilities = softmax(logits) if logits.ndim == 2 else None
        return cls(pixels_of(images, transform), images, logits, probabilities)

    def write(self, path: Path) -> None:
        """Write the first images to a NumPy archive, an entry for each attribute that is there."""
        most = MOST_SCENES if self.probabilities is None else MOST_IMAGES
        entries = {k: value[:most] for k, value in vars(self).items() if value is not None}
        np.savez(path, **entries)


def pixels_of(images: np.ndarray, transform: AnyTransform) -> np.ndarray:
    """Give the pixels (N, H, W, C) uint8 behind normalised images (N, C, H, W).

    Raises:
        ValueError: they do not come of 8-bit pixels through ``transform``.
    """
    std, mean = (np.array(v, np.float32)[:, None, None] for v in (transform.std, transform.mean))
    values = images * std + mean
    pixels = np.rint(values).clip(0, 255).astype(np.uint8)
    if not np.allclose(pixels, values, rtol=0, atol=0.01):
        raise ValueError("images: found no 8-bit pixels behind them, expected a transform's")
    return pixels.transpose(0, 2, 3, 1).copy()


@dataclass(frozen=True)
class Comparison:
    """A bundle's answers beside the checkpoint's: the largest difference, over all batch sizes.

    ``compared`` says of what: of probabilities it is their logarithms, since of many small
    probabilities the differences are small too, whatever a graph gives. ``agreement`` is the share
    of images, of a segmenter of all places, whose class is the same; of a detector's ``objects``,
    their number, see ``golden_objects.py``.
    """

    compared: str
    images: int
    difference: float
    tolerance: float
    agreement: float = 1.0
    objects: int | None = None

    @property
    def passes(self) -> bool:
        """Also not if the difference is NaN."""
        return self.difference <= self.tolerance


def compare(bundle: LoadedGraph[Any], golden: Golden) -> Comparison:
    """Run a graph on golden images, at each of its batch sizes."""
    expected = golden.logits
    if bundle.gives == "probabilities":
        assert golden.probabilities is not None  # a segmenter gives logits alone
        expected = log_probabilities(golden.probabilities)
    inputs = golden.pixels if bundle.takes == "uint8" else golden.images
    choices: list[tuple[int, ...]] = [(size,) for size in bundle.batch_sizes] or [()]
    runs = [dataclasses.replace(bundle, batch_sizes=sizes).logits(inputs) for sizes in choices]
    tolerance = FP32_TOLERANCE
    if bundle.precision in _PARTS:
        tolerance = _PARTS[bundle.precision] * float(np.ptp(expected))
    return Comparison(
        compared="logits" if bundle.gives == "logits" else "log-probabilities",
        images=len(inputs),
        difference=float(np.max([np.abs(found - expected).max() for found in runs])),
        tolerance=tolerance,
        agreement=min(float((r.argmax(1) == expected.argmax(1)).mean()) for r in runs),
    )


def self_test(bundle: LoadedGraph[Any]) -> str:
    """Check an installation: the bundle must give the checkpoint's answers to its golden images.

    Returns:
        one line that tells what was compared.

    Raises:
        UserError: it does not; or the golden pair is missing or damaged.
    """
    golden = read_golden(bundle)
    normalised = normalize(
        golden.pixels.transpose(0, 3, 1, 2), bundle.transform.mean, bundle.transform.std
    )
    check_normalised(normalised, golden.images, golden.size)
    result = compare(bundle, golden)
    sizes = ", ".join(map(str, bundle.batch_sizes)) or str(result.images)
    refuse_difference(result, golden.size)
    return (
        f"self test at {shown(golden.size)} px: {result.compared} of "
        f"{counted(result.images, 'image')}, "
        f"batch size {sizes}, in {told(bundle.runtime)}, within {result.difference:.2g} of the "
        f"checkpoint's (allowed {result.tolerance:.2g}), "
        f"{AGREEMENT[golden.logits.ndim]} equal on {result.agreement:.0%}"
    )


def check_normalised(normalised: np.ndarray, golden: np.ndarray, size: Size) -> None:
    """Refuse images that are normalised otherwise than the golden ones.

    Raises:
        UserError: they are.
    """
    off = float(np.abs(normalised - golden).max())
    if not off <= 1e-5:
        raise UserError(
            f"self test at {shown(size)} px: found normalised images up to {off:.3g} off the "
            "golden ones, expected the same: the preprocessing is another"
        )


def refuse_difference(result: Comparison, size: Size) -> None:
    """Refuse answers that are not the checkpoint's.

    Raises:
        UserError: they are not.
    """
    if not result.passes:
        raise UserError(
            f"self test at {shown(size)} px: found {result.compared} up to "
            f"{result.difference:.3g} off the checkpoint's on {counted(result.images, 'image')}, "
            f"expected at most {result.tolerance:.3g}"
        )


def read_golden(bundle: LoadedGraph[Any]) -> Golden:
    """Read the golden pair for the bundle's image size.

    Raises:
        UserError: there is none, or it is damaged or does not fit the bundle.
    """
    description = read_description(bundle.folder)
    size, channels = bundle.image_size, bundle.channels
    names = ["pixels", "images", "logits"]
    places: tuple[int, ...] = map_size(size)
    if description.labelling is None:
        names.append("probabilities")
        places = ()
    path, values = read_arrays(description, size, names)
    count, answer = len(values["pixels"]), (len(bundle.classes), *places)
    expected = [(count, *size, channels), (count, channels, *size), (count, *answer)]
    shapes = [value.shape for value in values.values()]
    if count == 0 or shapes != [*expected, (count, *answer)][: len(names)]:
        raise UserError(f"{path}: found arrays of {shapes}, expected {expected}")
    return Golden(values["pixels"], values["images"], values["logits"], values.get("probabilities"))


def read_arrays(
    description: Description, size: Size, names: Sequence[str]
) -> tuple[Path, dict[str, np.ndarray]]:
    """Read the golden pair of an image size: the file's path, and its arrays by name.

    Raises:
        UserError: there is none, or it is damaged.
    """
    if size not in description.golden:
        raise UserError(
            f"bundle {description.folder}: found no golden pair for {shown(size)} px, expected "
            "one; export.py writes it"
        )
    path = description.checked(description.golden[size])
    try:
        with np.load(path, allow_pickle=False) as entries:
            return path, {name: entries[name] for name in names}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: found no readable golden pair ({error})") from None
