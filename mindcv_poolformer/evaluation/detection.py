"""COCO's numbers over every picture once, on any number of ranks."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore.dataset import Dataset
from tqdm import tqdm

from ..data import loader
from ..data.detection.coco import CocoPictures
from ..data.detection.mask_pasting import PastedMasks
from ..data.order import Shard
from ..models.dense import MaskRCNN, RetinaNet
from ..models.dense.levels import all_finite
from ..runtime.amp import mixed_precision
from ..runtime.collectives import all_reduce_sum
from .coco import score
from .coco_scores import DetectionScores
from .detections import Detections
from .remedies import check_finite

# What is found on a picture: boxes (n, 4) in its pixels, scores (n,), labels (n,), and of a network
# with masks the probability of each object's pixels within its box (n, h, w).
Found = tuple[np.ndarray, ...]
# Images (1, 3, h, w), height and width of the picture in it (1, 2), and how many times as wide and
# high it is there (1, 2), to what is found.
Detector = Callable[[Tensor, Tensor, Tensor], Found]


@dataclass(frozen=True, eq=False)
class DetectionEvaluation:
    """What an evaluation found.

    Args:
        images: number of pictures, over all ranks.
        found: the scores, of all ranks.
        detections: the boxes themselves, of all ranks.
        images_per_second: over all ranks, compiling included: a graph for each size of pictures.
    """

    images: int
    found: DetectionScores
    detections: Detections
    images_per_second: float

    @property
    def score(self) -> float:
        """The number that ranks epochs, in percent."""
        return self.found.boxes.ap

    @property
    def scores(self) -> dict[str, float]:
        """The numbers, for a record."""
        return {
            "images": self.images,
            **self.found.scores,
            "images_per_second": self.images_per_second,
        }

    def __str__(self) -> str:
        return str(self.found)


class Detecting(nn.Cell):
    """A detector at an AMP level, with what comes of its maps in float32.

    Args:
        network: changed to the level.
        level: O0, O2, O3 or auto.
    """

    def __init__(self, network: RetinaNet | MaskRCNN, level: str) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.has_masks = isinstance(network, MaskRCNN)
        self.runner = mixed_precision(network, level)
        self.set_train(False)

    def construct(
        self, images: Tensor, shapes: Tensor, scale_factors: Tensor
    ) -> tuple[Tensor, ...]:
        """As :meth:`RetinaNet.detect`, and before it whether all that the network tells is finite.

        Of a Mask R-CNN as :meth:`MaskRCNN.detect`.
        """
        if self.has_masks:
            # Its parts are called one by one: each casts what it is given.
            return self.network.detect_checked(images, shapes, scale_factors)
        logits, deltas = self.runner(images)
        found = self.network.select(logits, deltas, shapes, scale_factors)
        return all_finite((*logits, *deltas)), *found


class DetectionEvaluator:
    """A network at an AMP level, and the pictures to evaluate it on.

    Args:
        network: of the pictures' classes; changed to evaluation mode and to the level.
        level: O0, O2, O3 or auto.
        pictures: all of them.
        dataset: of :func:`data.detection.loader.evaluation_batches`, this rank's part.
        shard: this rank's.
        bar: show a progress bar, if standard error is a terminal.
    """

    def __init__(
        self,
        network: RetinaNet | MaskRCNN,
        level: str,
        pictures: CocoPictures,
        dataset: Dataset,
        shard: Shard,
        bar: bool,
    ) -> None:
        self.network = network.set_train(False)
        self.level = level
        self.pictures = pictures
        self._detecting = Detecting(network, level)
        self._dataset = dataset
        self._shard = shard
        self._bar = bar

    def take(self, weights: Mapping[str, Parameter]) -> DetectionEvaluator:
        """Copy weights, by name, into the network."""
        for parameter in self.network.get_parameters():
            parameter.set_data(weights[parameter.name].value())
        return self

    def evaluate(self) -> DetectionEvaluation:
        """Evaluate the weights that the network has now."""
        return self.evaluate_beside()[0]

    def evaluate_beside(self, other: DetectionEvaluator | None = None) -> list[DetectionEvaluation]:
        """Evaluate this network, and another one on the same pictures."""
        both = [self, *([other] if other else [])]
        return evaluate_pictures(
            [_detector(each._detecting, each.level) for each in both],
            self.pictures,
            loader.batches(self._dataset),
            masks=isinstance(self.network, MaskRCNN),
            shard=self._shard,
            bar=self._bar,
        )


def _detector(detecting: Detecting, level: str) -> Detector:
    def detect(images: Tensor, shapes: Tensor, scale_factors: Tensor) -> Found:
        finite, boxes, scores, labels, count, *masks = detecting(images, shapes, scale_factors)
        check_finite(bool(finite.asnumpy()), level)
        n = int(count.asnumpy()[0])
        # Copied: the next run may use the memory.
        return tuple(x.asnumpy()[0, :n].copy() for x in (boxes, scores, labels, *masks))

    return detect


def evaluate_pictures(
    detectors: Sequence[Detector],
    pictures: CocoPictures,
    batches: Iterable[tuple[Tensor, ...]],
    *,
    masks: bool,
    shard: Shard,
    bar: bool,
) -> list[DetectionEvaluation]:
    """Count what each detector finds on the pictures.

    Args:
        detectors: one or several.
        pictures: all of them.
        batches: as :func:`data.detection.loader.evaluation_batches` gives them, this rank's part.
        masks: the detectors give masks, too.
        shard: this rank's; each sees its own part, and all get the result of the whole.
        bar: show a progress bar, if standard error is a terminal.

    Raises:
        UserError: a logit or a box is not finite; there is no object to be found.
    """
    found = [Detections(pictures, masks=masks) for _ in detectors]
    seconds = [0.0 for _ in detectors]
    sizes = set()
    total = len(range(shard.rank, len(pictures), shard.size))
    hidden = not (bar and sys.stderr.isatty())
    shown = tqdm(batches, "validating", total, leave=False, disable=hidden)
    for images, shapes, scale_factors, numbers in shown:
        sizes.add(images.shape)
        shown.set_postfix_str(f"{len(sizes)} sizes, a graph each")
        for index, detect in enumerate(detectors):
            start = time.perf_counter()
            boxes, scores, labels, *probabilities = detect(images, shapes, scale_factors[:, :2])
            seconds[index] += time.perf_counter() - start
            number = int(numbers.asnumpy()[0])
            size = tuple(pictures.sizes[number].tolist())
            pasted = [PastedMasks(each, boxes, size) for each in probabilities]
            found[index].add(number, boxes, scores, labels, *pasted)
    rates = all_reduce_sum(total / np.maximum(seconds, 1e-9), shard.size)
    return [
        DetectionEvaluation(len(pictures), score(one, shard), one, float(rate))
        for one, rate in zip(found, rates, strict=True)
    ]
