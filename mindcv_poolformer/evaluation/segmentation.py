"""mIoU over every scene once, each at its own size, on any number of ranks."""

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
from ..models.dense import SemanticFPN, label_map
from ..runtime.amp import mixed_precision
from ..runtime.collectives import all_reduce_sum
from .miou import Confusion, SegmentationScores
from .remedies import check_finite

# Images (1, 3, h, w) and the height and width of the answer to the class of each place, (1, H, W).
Labeller = Callable[[Tensor, tuple[int, int]], np.ndarray]
# Takes the number of a scene, what it is labelled as, and its label, (H, W) each.
Seen = Callable[[int, np.ndarray, np.ndarray], None]


@dataclass(frozen=True, eq=False)
class SegmentationEvaluation:
    """What an evaluation found.

    Args:
        images: number of scenes, over all ranks.
        found: the scores, of all ranks.
        images_per_second: over all ranks, compiling included: a graph for each size of scenes.
    """

    images: int
    found: SegmentationScores
    images_per_second: float

    @property
    def score(self) -> float:
        """The number that ranks epochs, in percent."""
        return self.found.miou

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


class SegmentationEvaluator:
    """A network at an AMP level, and the scenes to evaluate it on.

    Args:
        network: of the classes of the scenes; changed to evaluation mode and to the level.
        level: O0, O2, O3 or auto.
        scenes: of :func:`data.segmentation.loader.evaluation_scenes`, this rank's part.
        world_size: number of ranks.
        bar: show a progress bar, if standard error is a terminal.
    """

    def __init__(
        self, network: SemanticFPN, level: str, scenes: Dataset, world_size: int, bar: bool
    ) -> None:
        self.network = network.set_train(False)
        self.level = level
        self._runner = mixed_precision(network, level)
        self._scenes = scenes
        self._world_size = world_size
        self._bar = bar

    def take(self, weights: Mapping[str, Parameter]) -> SegmentationEvaluator:
        """Copy weights, by name, into the network."""
        for parameter in self.network.get_parameters():
            parameter.set_data(weights[parameter.name].value())
        return self

    def use(self, network: nn.Cell) -> SegmentationEvaluator:
        """Evaluate another network of the same inputs and outputs, at the same level."""
        self._runner = mixed_precision(network, self.level)
        return self

    def evaluate(self) -> SegmentationEvaluation:
        """Evaluate the weights that the network has now."""
        return self.evaluate_beside()[0][0]

    def evaluate_beside(
        self, other: SegmentationEvaluator | None = None, see: Seen | None = None
    ) -> tuple[list[SegmentationEvaluation], float]:
        """Evaluate this network, and another one on the same scenes.

        Args:
            other: its network counts, and its level.
            see: gets the number of each of this rank's scenes, what this network says, the label.

        Returns:
            an evaluation for each, and the share of pixels, in percent, that all label alike.
        """
        both = [self, *([other] if other else [])]
        return evaluate_scenes(
            [_labeller(each._runner, each.level) for each in both],
            loader.batches(self._scenes),
            num_classes=self.network.num_classes,
            world_size=self._world_size,
            bar=self._bar,
            see=see,
        )


def _labeller(runner: nn.Cell, level: str) -> Labeller:
    def label(images: Tensor, size: tuple[int, int]) -> np.ndarray:
        logits = runner(images)
        check_finite(bool(np.isfinite(logits.asnumpy()).all()), level)
        return label_map(logits, (images.shape[2], images.shape[3]), size).asnumpy()

    return label


def evaluate_scenes(
    labellers: Sequence[Labeller],
    scenes: Iterable[tuple[Tensor, Tensor]],
    *,
    num_classes: int,
    world_size: int,
    bar: bool,
    see: Seen | None = None,
) -> tuple[list[SegmentationEvaluation], float]:
    """Count what each labeller makes of the scenes.

    Args:
        labellers: one or several.
        scenes: images (1, 3, h, w) and labels (1, H, W), this rank's part.
        num_classes: how many classes there are.
        world_size: number of ranks; each sees its own part and all get the result of the whole.
        bar: show a progress bar, if standard error is a terminal.
        see: gets the number of each scene, the first labeller's answer (H, W), the label (H, W).

    Returns:
        as :meth:`SegmentationEvaluator.evaluate_beside`.

    Raises:
        UserError: a logit is not finite; no pixel has a label.
    """
    counts = [Confusion(num_classes) for _ in labellers]
    seconds = [0.0 for _ in labellers]
    totals = np.zeros(3, np.int64)  # scenes, pixels, pixels that all label alike
    sizes = set()
    shown = tqdm(scenes, "validating", leave=False, disable=not (bar and sys.stderr.isatty()))
    for number, (images, labels) in enumerate(shown):
        sizes.add(images.shape)
        shown.set_postfix_str(f"{len(sizes)} sizes, a graph each")
        truth = labels.asnumpy()
        answers = []
        for index, labeller in enumerate(labellers):
            start = time.perf_counter()
            answers.append(labeller(images, truth.shape[1:]))
            counts[index].add(answers[-1], truth)
            seconds[index] += time.perf_counter() - start
        alike = np.logical_and.reduce([answer == answers[0] for answer in answers])
        totals += [1, truth.size, alike.sum()]
        if see:
            see(number, answers[0][0], truth[0])
    rates = all_reduce_sum(totals[0] / np.maximum(seconds, 1e-9), world_size)
    images, pixels, alike = map(int, all_reduce_sum(totals, world_size))
    results = [
        SegmentationEvaluation(images, count.scores(world_size), float(rate))
        for count, rate in zip(counts, rates, strict=True)
    ]
    return results, 100.0 * alike / pixels
