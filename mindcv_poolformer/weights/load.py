"""Weights into networks: all of them, or all that another task leaves in use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from mindspore import Tensor

from ..models import VARIANTS, default_cfgs
from ..models.classifier import StagedClassifier
from ..runtime.checkpoint_file import fill
from ..runtime.errors import UserError
from .labels import folders_of
from .names import METAFORMER, NORM, POOLFORMER
from .recognise import ModelWeights

_HIDDEN = "head.fc1.weight"  # of an MLP head


def load_weights(network: StagedClassifier, weights: ModelWeights) -> None:
    """Fill every parameter of ``network``; it learns its classes' names and its preprocessing.

    Raises:
        UserError: the weights want another ``head`` than the network has, or as :func:`fill`.
    """
    _load(network, weights.values, weights, fresh=set())


def start_from(
    network: StagedClassifier,
    weights: ModelWeights,
    classes: Sequence[str] | None = None,
    *,
    any_channels: bool = False,
) -> str:
    """Fill ``network`` to train on from there; give one line that tells what was kept.

    The head, or the last layer of an MLP head, stays as it was initialised if the weights have
    another number of classes, or other ones. With ``features_only`` norm and head have no use, and
    the norms of the maps, if there are any, stay as initialised.

    Args:
        network: to fill.
        weights: to fill it with.
        classes: the class folders to train on, in the order of their labels. They are compared with
            the weights' own, where both are known, and name the network's where these do not.
        any_channels: fit the stem to the network's ``in_channels``, see :func:`adapt_stem`.

    Raises:
        UserError: as :func:`load_weights`, for all the other parameters.
    """
    values, notes = dict(weights.values), []
    channels = network.in_channels
    if any_channels and channels != weights.in_channels:
        stem = next(layout.stem for layout in (POOLFORMER, METAFORMER) if layout.stem in values)
        values[stem] = adapt_stem(values[stem], channels)
        notes.append(f"the stem is adapted to {channels} input channels")
    head = {name for name in values if name.startswith("head.")}
    unused: set[str] = set()
    if network.features_only:
        unused = {*head, *NORM}
        new_norms = ", and the norms of the maps are new" if _norms_of_maps(network) else ""
        notes.append(f"norm and head are left out{new_norms}")
    elif change := _change_of_head(network.num_classes, weights, classes):
        unused = weights.classifier if network.num_classes else head
        notes.append(change)
    kept = {name: value for name, value in values.items() if name not in unused}
    _load(network, kept, weights, _norms_of_maps(network) | _heads(network) - kept.keys())
    if classes and network.num_classes and not (network.features_only or network.classes):
        network.classes = tuple(classes)
    return "; ".join([f"starting from {weights.path}: {weights}", *notes])


def _norms_of_maps(network: StagedClassifier) -> set[str]:
    if not network.features_only:
        return set()
    return {p.name for norm in network.feature_norms for p in norm.get_parameters()}


def _heads(network: StagedClassifier) -> set[str]:
    return {p.name for p in network.get_parameters() if p.name.startswith("head.")}


def _change_of_head(num_classes: int, weights: ModelWeights, classes: Sequence[str] | None) -> str:
    """What becomes of the weights' head in a network for other classes; empty if it stays."""
    part = "head's last layer" if _HIDDEN in weights.values else "head"
    new = f"the {part} is new and untrained, for {num_classes} classes"
    if num_classes != weights.num_classes:
        return new if num_classes else "the head is left out"
    if classes is None:
        return ""
    folders = weights.folders or folders_of(weights.classes, classes)
    if folders is None and not set(classes).isdisjoint(weights.classes):
        folders = weights.classes  # some are names of folders, so the others are other classes
    if folders is None:
        return ""
    pairs = enumerate(zip_longest(folders, classes, fillvalue="without a name"))
    different = [(number, *names) for number, names in pairs if names[0] != names[1]]
    if not different:
        return ""
    if sorted(folders) == sorted(classes):
        new += ", whose order is another"
    number, theirs, ours = different[0]
    return f"{new}: class {number} is {theirs} in the weights, {ours} in the images"


def adapt_stem(weight: np.ndarray, in_channels: int) -> np.ndarray:
    """Give the stem's weight (dims[0], C, 7, 7) for another number of channels, as timm does.

    One channel gets the sum over the old ones. Else they are repeated in turn, and scaled by
    C / in_channels so that the sum stays about as large (timm's ``adapt_input_conv``).
    """
    if in_channels == 1:
        return weight.sum(axis=1, keepdims=True)
    old = weight.shape[1]
    return weight[:, np.arange(in_channels) % old] * np.float32(old / in_channels)


def _load(
    network: StagedClassifier,
    values: Mapping[str, np.ndarray],
    weights: ModelWeights,
    fresh: set[str],
) -> None:
    """Fill all parameters but the fresh ones."""
    if not network.features_only and weights.head != network.head_order:
        raise UserError(
            f"{weights.path}: found weights for the head {weights.head}, expected "
            f"{network.head_order} as in the model; create the model with "
            f'head="{weights.head}"'
        )
    parameters = {p.name: p for p in network.get_parameters() if p.name not in fresh}
    fill(parameters, {name: Tensor(value) for name, value in values.items()}, weights.path)
    network.preprocessing = weights.preprocessing
    if network.preprocessing is None and network.in_channels == 3:
        network.preprocessing = _published_preprocessing(weights.model)
    kept = weights.classifier & values.keys()
    network.classes = weights.classes if kept else ()
    network.for_people = weights.for_people if kept else False


def _published_preprocessing(model: str) -> dict[str, Any] | None:
    """How a variant's authors prepare images, as ``EvalTransform.to_dict`` tells it."""
    if model not in VARIANTS:
        return None
    config = default_cfgs[model]
    return {
        "image_size": config["input_size"][1],
        "crop_pct": config["crop_pct"],
        "interpolation": config["interpolation"],
        "mean": [255 * value for value in config["mean"]],
        "std": [255 * value for value in config["std"]],
        "pixel_range": [0, 255],
    }
