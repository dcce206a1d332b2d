"""From a weights file of anybody's to the weights of a model, complete or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import mindcv
import numpy as np
from mindspore import nn

from ..data.detection import coco_categories
from ..data.segmentation import ade20k
from ..models import VARIANTS
from ..models.classifier import NORM_POOL, POOL_NORM
from ..runtime.checkpoint_file import check_fit
from ..runtime.errors import UserError
from . import huggingface, imagenet, openmmlab
from .model_weights import ModelWeights, initial, widths_in
from .names import (
    HUGGINGFACE,
    HUGGINGFACE_BASE,
    METAFORMER,
    MINDCV,
    NORM,
    OUR_METAFORMER,
    RETINANET_LAYOUTS,
    SEGMENTER_LAYOUTS,
    TIMM,
    Naming,
)
from .openmmlab import Palette
from .read import Source, read_source
from .unwrap import find_network, told, unwrap, without_state
from .variant import kind_of, variant_of

UNUSED_NORM = ("backbone.norm0.gamma", "backbone.norm0.beta")  # in a RetinaNet


def read_weights(path: str | Path, model: str | None = None) -> ModelWeights:
    """Read and recognise weights of this project, MindCV, sail-sg, timm, Hugging Face, OpenMMLab.

    Checkpoints of training are such files too: ``note`` tells what of them was taken.

    Args:
        path: a .ckpt, .safetensors or PyTorch file, or a Hugging Face folder.
        model: what to take these weights for, if they fit it; see :func:`variant_of`.

    Raises:
        UserError: as :func:`read_source` and :func:`recognise`.
    """
    return recognise(read_source(path), model)


def recognise(source: Source, model: str | None = None) -> ModelWeights:
    """Find out whose model it is, and which; rename its parameters.

    timm's weights want the head "pool_norm", since timm pools before it normalises. Files that are
    published ones by their names get the names of ImageNet-1K's classes, see
    :func:`imagenet.published`. Segmentation models with 150 classes of which nothing is told, as
    official ones may be, get those of ADE20K, and detectors with 80 those of COCO.

    Args:
        source: the weights as they are.
        model: as :func:`read_weights` has it.

    Raises:
        UserError: the names are nobody's, as :func:`variant_of`, or a parameter is missing, left
            over, or of the wrong shape.
    """
    naming, prefix = find_network(source)
    _refuse_other_detectors(naming, source)
    source = unwrap(source, prefix)
    num_classes = _num_classes(naming, source)
    model = variant_of(naming, source, num_classes, model)
    if naming.layout.backbone:
        source = _without_norms_of_no_map(openmmlab.opened(source), naming)
        num_classes = max(num_classes, 1)  # without any, the shapes tell
    in_channels = source.values[naming.stem].shape[1]
    head = _head_order(naming, source)
    network = mindcv.create_model(
        model,
        num_classes=num_classes,
        in_channels=in_channels,
        **({"head": head} if head else widths_in(source.values, kind_of(model))),
    )
    values, note = _values_for(network, naming, source, prefix)
    weights = ModelWeights(
        values=values,
        model=model,
        num_classes=num_classes,
        in_channels=in_channels,
        head=head,
        origin=(OUR_METAFORMER if naming is MINDCV and VARIANTS[model].family else naming).label,
        path=source.path,
        note=note,
        limits=_limits(source, getattr(network, "limits", {})),
        **_told_of_classes(naming, source, num_classes),
    )
    if imagenet.published(source.path) and not source.metadata:
        return weights.with_imagenet_names()
    return weights


def _num_classes(naming: Naming, source: Source) -> int:
    """The rows of the classifier, by class; 0 without one."""
    weight = naming.theirs(naming.classifier(source.values)[0])
    if weight not in source.values:
        return 0
    return len(np.atleast_1d(source.values[weight])) // naming.layout.rows


def _values_for(
    network: nn.Cell, naming: Naming, source: Source, prefix: str
) -> tuple[dict[str, np.ndarray], str]:
    """The values of all of a network's parameters, by our names, and what to note of the rest.

    Raises:
        UserError: a parameter is missing, left over, of the wrong shape, or has no floats.
    """
    parameters = {parameter.name: parameter for parameter in network.get_parameters()}
    theirs = {ours: naming.theirs(ours) for ours in parameters}
    source = without_state(source, set(theirs.values()))
    notes = [told(source, prefix)]
    values = _linear(source.values) if naming.flat else source.values
    if naming is HUGGINGFACE_BASE and not (network.num_classes or theirs[NORM[0]] in values):
        values = values | {theirs[n]: initial(n, parameters[n].shape) for n in NORM}
        notes.append("it has no norm behind its stages, which is new")
    check_fit({theirs[ours]: one for ours, one in parameters.items()}, values, source.path)
    for name, value in values.items():
        if value.dtype != np.float32:
            raise UserError(f"{source.path}: found {name} in {value.dtype}, expected floats")
    return {ours: values[theirs[ours]] for ours in parameters}, "; ".join(filter(None, notes))


def _told_of_classes(naming: Naming, source: Source, num_classes: int) -> dict[str, Any]:
    """What a file, or what lies beside it, tells of classes and images: of :class:`ModelWeights`.

    Raises:
        UserError: there are more names than classes.
    """
    metadata, folder = source.metadata, source.path.parent
    huggingfaces = naming in (HUGGINGFACE, HUGGINGFACE_BASE)
    for_people = "labels" in metadata or huggingfaces
    classes = tuple(metadata.get("labels" if for_people else "classes", ()))
    preprocessing = metadata.get("preprocessing")
    if huggingfaces:
        classes = huggingface.read_classes(folder, num_classes)
        preprocessing = huggingface.read_preprocessing(folder)
    palette = openmmlab.palette_from(metadata.get("palette"))
    reduce_zero_label = metadata.get("reduce_zero_label")
    category_ids = tuple(metadata.get("category_ids", ()))
    if naming.layout.backbone and not metadata:
        classes = openmmlab.classes_in(source.meta)
        if naming.layout in SEGMENTER_LAYOUTS:
            palette = openmmlab.palette_in(source.meta)
            classes, palette, reduce_zero_label = _scene_classes(classes, palette, num_classes)
        else:
            classes, category_ids = _object_classes(classes, num_classes)
    if len(classes) > num_classes:
        raise UserError(
            f"{source.path}: found {len(classes)} class names, expected at most {num_classes}"
        )
    return {
        "classes": classes,
        "for_people": for_people,
        "preprocessing": preprocessing,
        "palette": palette,
        "reduce_zero_label": reduce_zero_label,
        "category_ids": category_ids,
    }


def _refuse_other_detectors(naming: Naming, source: Source) -> None:
    """Take no backbone out of a detector that is not known, as if it were a classifier's."""
    words = {word for name in source.values for word in name.split(".")}
    heads = sorted(words & {"bbox_head", "roi_head", "rpn_head"})
    if heads and not naming.layout.backbone:
        raise UserError(
            f"{source.path}: found a detector's {', '.join(heads)}, expected those of a RetinaNet "
            "or a Mask R-CNN as MMDetection names them"
        )


def _without_norms_of_no_map(source: Source, naming: Naming) -> Source:
    """Leave the norm of the backbone's first map, which a RetinaNet does not look at."""
    if naming.layout not in RETINANET_LAYOUTS:
        return source
    unused = [n for n in map(naming.theirs, UNUSED_NORM) if n in source.values]
    values = {name: value for name, value in source.values.items() if name not in unused}
    words = ["the norm of the first map, which a RetinaNet does not look at"] if unused else []
    return replace(source, values=values, left=(*source.left, *words))


def _scene_classes(
    classes: tuple[str, ...], palette: Palette, num_classes: int
) -> tuple[tuple[str, ...], Palette, bool | None]:
    """What classes others' segmentation models have: as told, or ADE20K's if nothing tells.

    ADE20K's labels have no class 0.
    """
    names = ade20k.names()
    if not classes and num_classes == len(names):
        classes = names
    if classes != names:
        return classes, palette, None
    return names, palette or openmmlab.palette_from(ade20k.colours().tolist()), True


def _object_classes(
    classes: tuple[str, ...], num_classes: int
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """What classes others' detectors have, and their numbers: COCO's if nothing tells."""
    names = coco_categories.names()
    if not classes and num_classes == len(names):
        classes = names
    return classes, coco_categories.numbers() if classes == names else ()


def _limits(source: Source, usual: Mapping[str, Any]) -> dict[str, Any]:
    """What counts as an object by a checkpoint's metadata."""
    told = source.metadata.get("limits", {})
    limits = {}
    for key, value in told.items() if isinstance(told, Mapping) else [("limits", told)]:
        kind = Integral if isinstance(usual.get(key), int) else Real
        if key not in usual or isinstance(value, bool) or not isinstance(value, kind):
            raise UserError(
                f"{source.path}: found {key} {value!r} to limit the objects, expected numbers of "
                f"{', '.join(usual) or 'none'}"
            )
        limits[key] = type(usual[key])(value)
    return limits


def _head_order(naming: Naming, source: Source) -> str:
    """Give the ``head`` that metadata name, or else the one of whose model it is; "" of none."""
    if naming.layout.backbone:
        return ""
    if naming is TIMM or naming.layout is METAFORMER:
        return POOL_NORM
    head = source.metadata.get("head", NORM_POOL)
    if head not in (NORM_POOL, POOL_NORM):
        raise UserError(
            f"{source.path}: found the head {head!r}, expected {NORM_POOL} or {POOL_NORM}"
        )
    return head


def _linear(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights (O, I, 1, 1) as those of linear layers, (O, I)."""
    return {
        name: value.reshape(value.shape[:2]) if value.shape[2:] == (1, 1) else value
        for name, value in values.items()
    }
