"""A detector's golden pair: pictures and what the checkpoint could have found on them.

Which of two boxes stays is a matter of rounding where their scores are next to equal. So the pair
holds every candidate before non-maximum suppression, and an answer is right that suppresses them
rightly, up to a tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.detection.fitting import EvalTransform, padded
from ..data.detection.objects import Objects
from ..data.preprocess import normalize
from ..runtime.counted import counted
from ..runtime.errors import UserError
from .bundle import LoadedGraph
from .description import Description, read_description
from .golden import (
    FP16_TOLERANCE,
    Comparison,
    check_normalised,
    pixels_of,
    read_arrays,
    refuse_difference,
)
from .image_size import Size, shown
from .runtimes import told

# Of a score, and of a box as a part of its size: exponentials magnify the rounding of deltas. A
# Mask R-CNN of random weights measures 2.5e-4 at 800 x 1344 px.
FP32_TOLERANCE = 1e-3
SMALLEST = 32  # pixels: differences of boxes are told as parts of their longer edge, at least this
CLOSE_IOU = 0.01  # moved apart by label, float32 boxes overlap by so much more or less at most
CLOSE_MASKS = 10  # times as far as scores probabilities of a mask may be off: its box is, too
NAMES = ("pixels", "images", "shapes", "boxes", "scores", "labels")
OF_MASKS = ("masked_boxes", "masked_labels", "masks")


@dataclass(frozen=True, eq=False)
class GoldenObjects:
    """Pictures at the network's size, and the checkpoint's candidates.

    Args:
        pixels: (N, H, W, 3) uint8; without meaning where it is but filling.
        images: (N, 3, H, W) float32, the same normalised, and filled up with zeros.
        shapes: (N, 2) int32, height and width of each picture without the filling.
        boxes: (N, n, 4) float32, (x1, y1, x2, y2) in pixels.
        scores: (N, n) float32.
        labels: (N, n) int32.
        masked_boxes: (N, D, 4) float32, the objects that the checkpoint itself found; these three
            are None of a network without masks.
        masked_labels: (N, D) int32, -1 where there is none.
        masks: (N, D, 28, 28) float32, the probabilities of their pixels.
    """

    pixels: np.ndarray
    images: np.ndarray
    shapes: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masked_boxes: np.ndarray | None = None
    masked_labels: np.ndarray | None = None
    masks: np.ndarray | None = None

    @property
    def size(self) -> Size:
        """Height and width of the images."""
        return self.images.shape[2], self.images.shape[3]

    @classmethod
    def of(
        cls,
        images: np.ndarray,
        shapes: np.ndarray,
        transform: EvalTransform,
        answer: tuple[np.ndarray, ...],
    ) -> GoldenObjects:
        """The pair for pictures as the network sees them, and its answer.

        That is boxes, scores and labels of the candidates; of a network with masks behind them what
        :meth:`MaskRCNN.detect` gives.

        Raises:
            ValueError: the pictures do not come of 8-bit pixels through ``transform``.
        """
        pixels = [
            pixels_of(image[None, :, :h, :w], transform)[0].transpose(2, 0, 1)
            for image, (h, w) in zip(images, shapes.tolist(), strict=True)
        ]
        height, width = images.shape[2:]
        filled = np.stack([padded(each, (height, width)) for each in pixels])
        boxes, scores, labels, *found = answer
        masked: tuple[np.ndarray, ...] = ()
        if found:
            there = np.arange(found[1].shape[1]) < found[3][:, None]
            masked = found[0], np.where(there, found[2], -1).astype(np.int32), found[4]
        return cls(
            filled.transpose(0, 2, 3, 1).copy(),
            images,
            shapes.astype(np.int32),
            boxes,
            scores,
            labels.astype(np.int32),
            *masked,
        )

    def write(self, path: Path) -> None:
        """Write the first picture to a NumPy archive, an entry for each attribute."""
        entries = {name: value[:1] for name, value in vars(self).items() if value is not None}
        np.savez_compressed(path, **entries)


def compare_objects(
    bundle: LoadedGraph[Any], golden: GoldenObjects, objects: Objects
) -> Comparison:
    """Run a graph on golden pictures, one by one."""
    tolerance = FP16_TOLERANCE if bundle.precision == "fp16" else FP32_TOLERANCE
    differences, count, masks_compared = [], 0, 0
    for i in range(len(golden.images)):
        one = slice(i, i + 1)
        boxes, scores, labels, (n,), *masks = bundle.network(golden.images[one], golden.shapes[one])
        found = boxes[0, :n], scores[0, :n], labels[0, :n]
        candidates = golden.boxes[i], golden.scores[i], golden.labels[i]
        differences.append(difference(found, candidates, objects, tolerance))
        if golden.masks is not None:
            masked = boxes[0, :n], labels[0, :n], masks[0][0, :n]
            assert golden.masked_boxes is not None and golden.masked_labels is not None
            expected = golden.masked_boxes[i], golden.masked_labels[i], golden.masks[i]
            off, compared = difference_of_masks(masked, expected, tolerance)
            differences.append(off / CLOSE_MASKS)
            masks_compared += compared
        count += int(n)
    if golden.masks is not None and count and not masks_compared:
        differences.append(np.inf)  # nothing speaks for the masks
    return Comparison(
        compared="objects",
        images=len(golden.images),
        difference=float(np.max(differences)),
        tolerance=tolerance,
        objects=count,
    )


def difference(
    found: tuple[np.ndarray, ...],
    candidates: tuple[np.ndarray, ...],
    objects: Objects,
    tolerance: float,
) -> float:
    """Give how far an answer is from a right one: of scores, or of boxes as a part of their size.

    Args:
        found: boxes (m, 4), scores (m,) and labels (m,).
        candidates: boxes (n, 4), scores (n,) and labels (n,), of which these should be the surest
            ones that no surer one of their label overlaps.
        objects: what counts.
        tolerance: boxes may be off by so much, and overlap by twice as much more or less.
    """
    close = CLOSE_IOU + 2 * tolerance
    boxes, scores, labels = found
    every_box, every_score, every_label = candidates
    same = labels[:, None] == every_label
    # Each found one is a candidate.
    edges = np.maximum(boxes[:, 2:] - boxes[:, :2], SMALLEST).max(1)
    apart = np.abs(boxes[:, None] - every_box).max(2) / edges[:, None]
    either = np.maximum(apart, np.abs(scores[:, None] - every_score))
    off = [np.where(same, either, np.inf).min(1, initial=np.inf)]
    # No two of a label overlap.
    twins = np.triu(labels[:, None] == labels, 1)
    off.append((iou(boxes, boxes) - objects.iou_threshold - close)[twins])
    # A candidate is not sure enough, or it is found or overlapped by a surer one that is.
    full = len(scores) == objects.detections
    least = scores.min() if full else objects.score_threshold
    # (Boxes beyond the border have no area, and so no overlap with themselves.)
    overlap = iou(boxes, every_box) > objects.iou_threshold - close
    covers = same & (overlap | (apart < close))
    surest = np.where(covers, scores[:, None], least).max(0, initial=least)
    off.append(every_score - surest)
    return float(np.max(np.concatenate(off), initial=0.0))


def difference_of_masks(
    found: tuple[np.ndarray, ...], expected: tuple[np.ndarray, ...], tolerance: float
) -> tuple[float, int]:
    """Give how far the probabilities of masks are off, of objects that both found, and how many.

    Where the rounding of scores tells which of two boxes stays, there is no mask to compare with.

    Args:
        found: boxes (m, 4), labels (m,) and masks (m, h, w).
        expected: boxes (n, 4), labels (n,) and masks (n, h, w).
        tolerance: boxes that are off by no more are the same.
    """
    boxes, labels, masks = found
    every_box, every_label, every_mask = expected
    if not len(every_box):
        return 0.0, 0
    edges = np.maximum(boxes[:, 2:] - boxes[:, :2], SMALLEST).max(1)
    apart = np.abs(boxes[:, None] - every_box).max(2) / edges[:, None]
    apart = np.where(labels[:, None] == every_label, apart, np.inf)
    nearest = apart.argmin(1)
    same = apart.min(1, initial=np.inf) <= tolerance
    return float(np.abs(masks - every_mask[nearest])[same].max(initial=0.0)), int(same.sum())


def iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Give the intersection over union of boxes (m, 4) with others (n, 4): (m, n)."""
    low = np.maximum(boxes[:, None, :2], others[:, :2])
    high = np.minimum(boxes[:, None, 2:], others[:, 2:])
    common = np.maximum(high - low, 0).prod(2)
    areas, other_areas = ((x[:, 2:] - x[:, :2]).prod(1) for x in (boxes, others))
    return common / np.maximum(areas[:, None] + other_areas - common, 1e-6)


def self_test_objects(bundle: LoadedGraph[Any]) -> str:
    """Check an installation, as :func:`self_test`, by a detector's bundle.

    Returns:
        one line that tells what was compared.

    Raises:
        UserError: it does not give the checkpoint's answers; or the golden pair is missing or
            damaged.
    """
    description = read_description(bundle.folder)
    assert description.objects is not None
    golden = read_golden_objects(description, bundle.image_size)
    height, width = golden.shapes[0].tolist()
    pixels = golden.pixels[:, :height, :width].transpose(0, 3, 1, 2)
    images = normalize(pixels, bundle.transform.mean, bundle.transform.std)
    check_normalised(images, golden.images[:, :, :height, :width], golden.size)
    result = compare_objects(bundle, golden, description.objects)
    refuse_difference(result, golden.size)
    return (
        f"self test at {shown(golden.size)} px: {counted(result.objects or 0, 'object')} on "
        f"{counted(result.images, 'image')}, in {told(bundle.runtime)}, within "
        f"{result.difference:.2g} of the checkpoint's "
        f"(allowed {result.tolerance:.2g})"
    )


def read_golden_objects(description: Description, size: Size) -> GoldenObjects:
    """Read the golden pair of an image size.

    Raises:
        UserError: there is none, or it is damaged or does not fit the bundle.
    """
    assert description.objects is not None
    edge, places = description.objects.mask_edge, (1, description.objects.detections)
    names = NAMES if edge is None else (*NAMES, *OF_MASKS)
    path, values = read_arrays(description, size, names)
    count, channels = values["scores"].shape[-1:], len(description.transform.mean)
    expected = [
        (1, *size, channels),
        (1, channels, *size),
        (1, 2),
        (1, *count, 4),
        (1, *count),
        (1, *count),
    ]
    if edge is not None:
        expected += [(*places, 4), places, (*places, edge, edge)]
    if (found := [value.shape for value in values.values()]) != expected:
        raise UserError(f"{path}: found arrays of {found}, expected {expected}")
    return GoldenObjects(**values)
