"""Weights into networks: all of them, or all that another task leaves in use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import mindcv
import numpy as np
from mindspore import Tensor

from ..data.detection import transforms as detection
from ..data.segmentation.transforms import official_test
from ..models import VARIANTS, MaskRCNN, RetinaNet, SemanticFPN, StagedClassifier, default_cfgs
from ..models.dense import Dense
from ..runtime.checkpoint_file import fill
from ..runtime.counted import counted
from ..runtime.errors import UserError
from .labels import folders_of, respelled
from .model_weights import ModelWeights
from .names import (
    BACKBONE,
    DENSE_LAYOUTS,
    METAFORMER,
    NORM,
    POOLFORMER,
)
from .variant import Kind

Network = StagedClassifier | Dense


def load_weights(network: Network, weights: ModelWeights) -> None:
    """Fill every parameter of ``network``; it learns its classes' names and its preprocessing.

    A segmentation model learns their colours too, a detector their numbers in COCO's files.

    Raises:
        UserError: the weights are of another kind of network, want another ``head`` than it has,
            or as :func:`fill`.
    """
    weights.check_kind(_kind(network))
    _check_head(network, weights)
    _load(network, weights.values, weights, fresh=set())


def network_of(weights: ModelWeights, **settings: Any) -> Any:
    """Give a new network with weights.

    Args:
        weights: of it.
        settings: keywords of ``mindcv.create_model`` beside those that the weights tell, or in
            their place.

    Raises:
        UserError: as :func:`load_weights`.
    """
    network = mindcv.create_model(weights.model, **weights.settings | settings)
    load_weights(network, weights)
    return network


def start_from(
    network: Network,
    weights: ModelWeights,
    classes: Sequence[str] | None = None,
    *,
    any_channels: bool = False,
) -> str:
    """Fill ``network`` to train on from there; give one line that tells what was kept.

    The head, or the last layers of an MLP head, of a segmentation model and of a detector, stay as
    initialised if the weights have another number of classes, or other ones. With ``features_only``
    norm and head have no use, and the norms of the maps, if there are any, stay as initialised. Of
    the weights of another kind of network the backbone alone is taken.

    Args:
        network: to fill.
        weights: to fill it with.
        classes: the class folders to train on, in the order of their labels, or the classes of a
            segmentation or detection. They are compared with the weights' own, where both are
            known, and name the network's where these do not.
        any_channels: fit the stem to the network's ``in_channels``, see :func:`adapt_stem`.

    Raises:
        UserError: as :func:`load_weights`, for all the other parameters.
    """
    line = [f"starting from {weights.path}: {weights}"]
    if any_channels and network.in_channels != weights.in_channels:
        weights = _at_channels(weights, network.in_channels)
        line.append(f"the stem is adapted to {counted(network.in_channels, 'input channel')}")
    if isinstance(network, StagedClassifier):
        note = _start_classifier(network, weights, classes)
        classifies = network.num_classes > 0 and not network.features_only
    else:
        note = _start_dense(network, weights, classes)
        classifies = True
    if classes and classifies and not network.classes:
        network.classes = tuple(classes)
    return "; ".join(filter(None, [*line, note]))


def _start_classifier(
    network: StagedClassifier, weights: ModelWeights, classes: Sequence[str] | None
) -> str:
    """The same of a classifier; give what was not kept."""
    notes = []
    if weights.is_dense:
        weights = replace(weights.backbone_alone(), head=network.head_order)
        new_norm = "" if network.features_only else ", and the norm before the head is new"
        notes.append(f"its backbone is taken{new_norm}")
    _check_head(network, weights)
    head = {name for name in weights.values if name.startswith("head.")}
    unused: set[str] = set()
    if network.features_only:
        unused = {*head, *NORM}
        new_norms = ", and the norms of the maps are new" if _norms_of_maps(network) else ""
        notes.append(f"norm and head are left out{new_norms}")
    elif change := _change_of_head(network.num_classes, weights, classes):
        unused = weights.classifier if network.num_classes else head
        notes.append(change)
    kept = {name: value for name, value in weights.values.items() if name not in unused}
    _load(network, kept, weights, _norms_of_maps(network) | _heads(network) - kept.keys())
    return "; ".join(notes)


def _start_dense(network: Dense, weights: ModelWeights, classes: Sequence[str] | None) -> str:
    """The same of a segmentation model or detector."""
    if weights.kind == _kind(network):
        change = _change_of_head(network.num_classes, weights, classes)
        fresh = weights.classifier if change else set()
        kept = {name: value for name, value in weights.values.items() if name not in fresh}
        _load(network, kept, weights, fresh)
        return change
    norms = _norms_of_maps(network.backbone)
    fresh = norms | {p.name for p in network.get_parameters() if network.in_head(p.name)}
    values = weights.backbone_alone().values
    kept = {BACKBONE + name: value for name, value in values.items() if name not in NORM}
    _load(network, kept, weights, fresh)
    without = "the norms of its maps, neck and head" if weights.is_dense else "norm and head"
    new = "the norms of its maps, neck and head" if norms else "neck and head"
    return (
        f"its backbone is taken, without {without}; {new} are new and untrained, for "
        f"{counted(network.num_classes, 'class')}"
    )


def _norms_of_maps(network: StagedClassifier) -> set[str]:
    if not network.features_only:
        return set()
    return {p.name for norm in network.feature_norms for p in norm.get_parameters()}


def _heads(network: StagedClassifier) -> set[str]:
    return {p.name for p in network.get_parameters() if p.name.startswith("head.")}


def _change_of_head(num_classes: int, weights: ModelWeights, classes: Sequence[str] | None) -> str:
    """What becomes of the weights' head in a network for other classes; empty if it stays."""
    are = "are" if weights.kind == "Mask R-CNN" else "is"
    new = f"the {weights.last_layer} {are} new and untrained, for {counted(num_classes, 'class')}"
    if num_classes != weights.num_classes:
        return new if num_classes else "the head is left out"
    if classes is None:
        return ""
    folders = weights.folders or folders_of(weights.classes, classes)
    names = respelled(weights.classes, classes)
    if folders is None and not set(classes).isdisjoint(names):
        folders = names  # some are names of folders, so the others are other classes
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


def _at_channels(weights: ModelWeights, in_channels: int) -> ModelWeights:
    layouts = (POOLFORMER, METAFORMER, *DENSE_LAYOUTS)
    stem = next(layout.stem for layout in layouts if layout.stem in weights.values)
    adapted = {stem: adapt_stem(weights.values[stem], in_channels)}
    return replace(weights, values=weights.values | adapted, in_channels=in_channels)


def adapt_stem(weight: np.ndarray, in_channels: int) -> np.ndarray:
    """Give the stem's weight (dims[0], C, 7, 7) for another number of channels, as timm does.

    One channel gets the sum over the old ones. Else they are repeated in turn, and scaled by
    C / in_channels so that the sum stays about as large (timm's ``adapt_input_conv``).
    """
    if in_channels == 1:
        return weight.sum(axis=1, keepdims=True)
    old = weight.shape[1]
    return weight[:, np.arange(in_channels) % old] * np.float32(old / in_channels)


def _check_head(network: Network, weights: ModelWeights) -> None:
    if not isinstance(network, StagedClassifier) or network.features_only:
        return
    if weights.head != network.head_order:
        raise UserError(
            f"{weights.path}: found weights for the head {weights.head}, expected "
            f"{network.head_order} as in the model; create the model with "
            f'head="{weights.head}"'
        )


def _load(
    network: Network,
    values: Mapping[str, np.ndarray],
    weights: ModelWeights,
    fresh: set[str],
) -> None:
    """Fill all parameters but the fresh ones."""
    parameters = {p.name: p for p in network.get_parameters() if p.name not in fresh}
    fill(parameters, {name: Tensor(value) for name, value in values.items()}, weights.path)
    kind = _kind(network)
    network.preprocessing = weights.preprocessing if weights.kind == kind else None
    if network.preprocessing is None and network.in_channels == 3:
        network.preprocessing = _official_preprocessing(network, weights.model)
    kept = bool(weights.classifier & values.keys())
    network.classes = weights.classes if kept else ()
    if isinstance(network, SemanticFPN):
        network.palette = weights.palette if kept else ()
        network.reduce_zero_label = weights.reduce_zero_label if kept else None
    elif isinstance(network, RetinaNet | MaskRCNN):
        network.category_ids = weights.category_ids if kept else ()
    else:
        network.for_people = kept and weights.for_people


def _kind(network: Network) -> Kind:
    match network:
        case SemanticFPN():
            return "segmentation model"
        case RetinaNet():
            return "RetinaNet"
        case MaskRCNN():
            return "Mask R-CNN"
        case _:
            return "classifier"


def _official_preprocessing(network: Network, model: str) -> dict[str, Any] | None:
    """How the authors prepare images for it, in the words of its task's ``EvalTransform``."""
    match network:
        case SemanticFPN():
            return official_test().to_dict()
        case RetinaNet() | MaskRCNN():
            return detection.official_test().to_dict()
        case _:
            return _published_preprocessing(model)


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
