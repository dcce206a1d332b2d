"""What a classifier says beside its logits, in the words of Hugging Face."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mindspore as ms
from mindspore import Tensor, ops

from ..runtime.counted import counted

IGNORED = -100


class ClassifierOutput(NamedTuple):
    """The fields of transformers' ImageClassifierOutputWithNoAttention; a tuple, as graphs have it.

    Args:
        loss: mean cross entropy, a scalar; None without labels.
        logits: (N, num_classes).
        hidden_states: the maps after each of the four stages, before any norm; None unless asked
            for.
    """

    loss: Tensor | None
    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the batch of the cross entropy with soft targets, both (N, num_classes)."""
    return -(targets * ops.log_softmax(logits, axis=-1)).sum(axis=-1).mean()


def name_classes(classes: Sequence[str], num_classes: int) -> list[str]:
    """Give one name for each class: those known, then Hugging Face's placeholders LABEL_<number>.

    Raises:
        ValueError: there are more names than classes.
    """
    if len(classes) > num_classes:
        raise ValueError(f"classes: found {len(classes)} names for {counted(num_classes, 'class')}")
    return [*classes, *map(placeholder, range(len(classes), num_classes))]


def placeholder(number: int) -> str:
    """What Hugging Face calls a class without a name."""
    return f"LABEL_{number}"


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Look at class numbers, which a graph cannot.

    Raises:
        ValueError: one is neither a class nor -100.
    """
    numbers = labels.asnumpy()
    wrong = numbers[((numbers < 0) | (numbers >= num_classes)) & (numbers != IGNORED)]
    if wrong.size:
        raise ValueError(f"labels: found {wrong[0]}, expected 0 to {num_classes - 1}, or {IGNORED}")


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Give the mean cross entropy of logits (N, num_classes) and class numbers (N,), in float32.

    Images with the number -100 are left out, as PyTorch leaves them out.

    Raises:
        ValueError: the labels are no integers. Floats would be soft targets to MindSpore, and
            several labels for each image to Hugging Face.
    """
    if labels.dtype not in (ms.int32, ms.int64):
        raise ValueError(f"labels: found {labels.dtype}, expected int32 or int64")
    numbers = labels.astype(ms.int32)
    return ops.cross_entropy(logits.astype(ms.float32), numbers, ignore_index=IGNORED)
