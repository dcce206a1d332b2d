"""Exact top-1, top-5 and cross entropy over every image once, on any number of ranks."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import mindcv
import numpy as np
from mindspore import Parameter, Tensor, nn
from tqdm import tqdm

from ..config import Recipe
from ..data import loader
from ..data.folder import ImageFolder
from ..data.pipeline import evaluation_batches
from ..models.parts.mixers import choose_attention
from ..runtime.amp import mixed_precision
from ..runtime.collectives import all_gather, all_reduce_sum
from ..runtime.errors import UserError
from ..runtime.launch import World
from .remedies import DAMAGED, remedy_at


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What an evaluation found.

    Args:
        images: number of images, over all ranks.
        top1: share of images whose highest logit is their class, in percent.
        top5: share of images whose class is among the five highest logits, in percent.
        loss: mean cross entropy with plain labels.
        images_per_second: over all ranks, without the first batch, which compiles.
        predictions: the class predicted for each image of this rank, in the data set's order.
        confidences: the probability of that class, float64.
    """

    images: int
    top1: float
    top5: float
    loss: float
    images_per_second: float
    predictions: np.ndarray
    confidences: np.ndarray

    @property
    def score(self) -> float:
        """The number that ranks epochs, in percent."""
        return self.top1

    @property
    def scores(self) -> dict[str, float]:
        """The numbers, for a record."""
        return {
            "images": self.images,
            "top1": self.top1,
            "top5": self.top5,
            "loss": self.loss,
            "images_per_second": self.images_per_second,
        }

    def __str__(self) -> str:
        return f"top-1 {self.top1:.2f} %, top-5 {self.top5:.2f} %, loss {self.loss:.4f}"


class Evaluator:
    """A network at an AMP level, and the images to evaluate it on.

    Args:
        recipe: names the model, the preprocessing, the batch size and the workers.
        level: O0, O2, O3 or auto.
        images: to evaluate on.
        num_classes: outputs of the network.
        head: of the network, see :class:`PoolFormer`.
        world: the ranks that share the images.
    """

    def __init__(
        self,
        recipe: Recipe,
        level: str,
        images: ImageFolder,
        num_classes: int,
        head: str,
        world: World,
    ) -> None:
        self.network = mindcv.create_model(
            recipe.model.model,
            num_classes=num_classes,
            in_channels=recipe.model.in_channels,
            head=head,
        ).set_train(False)
        choose_attention(self.network, recipe.system.flash_attention)
        self.world = world
        self._level = level
        self._runner = mixed_precision(self.network, level)
        shard = loader.Shard(world.rank, world.size)
        self._dataset = evaluation_batches(recipe, images, shard)

    def take(self, weights: Mapping[str, Parameter]) -> Evaluator:
        """Copy weights, by name, into the network."""
        for parameter in self.network.get_parameters():
            parameter.set_data(weights[parameter.name].value())
        return self

    def use(self, network: nn.Cell) -> Evaluator:
        """Evaluate another network of the same inputs and outputs, at the same level."""
        self.network = network
        self._runner = mixed_precision(network, self._level)
        return self

    def evaluate(self) -> Evaluation:
        """Evaluate the weights that the network has now."""
        batches = loader.batches(self._dataset)
        return evaluate(
            self._runner,
            batches,
            world_size=self.world.size,
            bar=self.world.is_main,
            remedy=remedy_at(self._level),
        )


def evaluate(
    network: nn.Cell,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    world_size: int,
    bar: bool,
    remedy: str = DAMAGED,
) -> Evaluation:
    """Run a network over the batches of :func:`data.loader.evaluation_dataset`.

    Args:
        network: in evaluation mode; images (N, C, H, W) to float32 logits.
        batches: images and labels (N,), where a label of -1 marks padding, which does not count.
        world_size: number of ranks; each sees its own part and all get the result of the whole.
        bar: show a progress bar, if standard error is a terminal.
        remedy: what to tell of logits that are not finite.

    Raises:
        UserError: a logit is not finite.
    """
    own = tally(network, batches, bar=bar, remedy=remedy)
    images, top1, top5 = map(
        int, all_reduce_sum(np.array([own.images, own.top1, own.top5], np.int64), world_size)
    )
    loss, rate = map(float, all_reduce_sum(np.array([own.loss, own.images_per_second]), world_size))
    return Evaluation(
        images=images,
        top1=100.0 * top1 / images,
        top5=100.0 * top5 / images,
        loss=loss / images,
        images_per_second=rate,
        predictions=own.predictions,
        confidences=own.confidences,
    )


@dataclass(frozen=True, eq=False)
class Tally:
    """What one rank found in its part of the images, which may be none of them.

    Args:
        images: number of images.
        top1: of how many the highest logit is their class.
        top5: of how many the class is among the five highest logits.
        loss: sum of the cross entropies.
        images_per_second: without the first batch, which compiles, if there are others.
        predictions: the class predicted for each image.
        confidences: the probability of that class, float64.
    """

    images: int
    top1: int
    top5: int
    loss: float
    images_per_second: float
    predictions: np.ndarray
    confidences: np.ndarray


def tally(
    network: nn.Cell,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    bar: bool,
    remedy: str = DAMAGED,
) -> Tally:
    """Count over the batches of one rank; takes its arguments, and raises, as :func:`evaluate`."""
    counts = np.zeros(3, np.int64)  # images, top-1, top-5
    loss = 0.0
    predictions, confidences = [], []
    timed = 0
    start = first = time.perf_counter()
    for number, (images, labels) in enumerate(
        tqdm(batches, "validating", leave=False, disable=not (bar and sys.stderr.isatty()))
    ):
        real = labels.asnumpy() >= 0
        targets = labels.asnumpy()[real]
        logits = network(images).asnumpy()[real].astype(np.float64)
        if not np.isfinite(logits).all():
            raise UserError(
                f"validation: found logits that are not finite in batch {number}, expected finite "
                f"ones: {remedy}"
            )
        ranks = _ranks(logits, targets)
        counts += [len(targets), (ranks < 1).sum(), (ranks < 5).sum()]
        log_totals = _log_totals(logits)
        loss += float((log_totals - logits[np.arange(len(targets)), targets]).sum())
        predictions.append(logits.argmax(axis=1))
        confidences.append(np.exp(logits.max(axis=1) - log_totals))
        if number == 0:
            first = time.perf_counter()
        else:
            timed += len(targets)
    now = time.perf_counter()
    images, top1, top5 = map(int, counts)
    rate = timed / (now - first) if timed else images / (now - start)
    said = np.concatenate(predictions), np.concatenate(confidences)
    return Tally(images, top1, top5, loss, rate, *said)


def of_all_ranks(result: Evaluation, world_size: int) -> Evaluation:
    """Give every rank the predictions and confidences of all images, in the data set's order.

    To call on every rank. Rank r has each world_size-th image from the r-th on, as
    :func:`data.loader.evaluation_dataset` deals them out.
    """

    def whole(own: np.ndarray) -> np.ndarray:
        padded = np.zeros(-(-result.images // world_size), own.dtype)
        padded[: len(own)] = own
        return all_gather(padded, world_size).T.reshape(-1)[: result.images]

    return replace(
        result, predictions=whole(result.predictions), confidences=whole(result.confidences)
    )


def agreement(first: Evaluation, second: Evaluation, *, world_size: int) -> float:
    """Share of images, in percent, for which two evaluations of the same data predict the same."""
    same = np.array([(first.predictions == second.predictions).sum()], np.int64)
    return 100.0 * int(all_reduce_sum(same, world_size)[0]) / first.images


def _ranks(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """How many classes stand before the target; among equal logits the lower index comes first."""
    rows = np.arange(len(targets))
    own = logits[rows, targets][:, None]
    before = np.arange(logits.shape[1]) < targets[:, None]
    return (logits > own).sum(axis=1) + ((logits == own) & before).sum(axis=1)


def _log_totals(logits: np.ndarray) -> np.ndarray:
    """The logarithm of the sum of each row's exponentials: logits less it are log probabilities."""
    highest = logits.max(axis=1)
    return highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1))
