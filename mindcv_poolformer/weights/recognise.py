"""From a weights file of anybody's to the weights of a model, complete or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import mindcv
import numpy as np

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
    num_classes = 0
    weight = naming.theirs(naming.classifier(source.values)[0])
    if weight in source.values:
        num_classes = len(np.atleast_1d(source.values[weight])) // naming.layout.rows
    model = variant_of(naming, source, num_classes, model)
    in_channels = source.values[naming.stem].shape[1]
    head = ""
    settings: dict[str, Any]
    if naming.layout.backbone:
        source = _without_norms_of_no_map(openmmlab.opened(source), naming)
        num_classes = max(num_classes, 1)  # without any, the shapes below tell
        settings = widths_in(source.values, kind_of(model))
    else:
        pools_first = naming is TIMM or naming.layout is METAFORMER
        head = POOL_NORM if pools_first else _head_order(source)
        settings = {"head": head}
    network = mindcv.create_model(
        model, num_classes=num_classes, in_channels=in_channels, **settings
    )
    shapes = {parameter.name: parameter for parameter in network.get_parameters()}
    theirs = {ours: naming.theirs(ours) for ours in shapes}
    source = without_state(source, set(theirs.values()))
    note = told(source, prefix)
    values = _linear(source.values) if naming.flat else source.values
    if naming is HUGGINGFACE_BASE and not (num_classes or theirs[NORM[0]] in values):
        values = values | {theirs[n]: initial(n, shapes[n].shape) for n in NORM}
        note = "; ".join(filter(None, (note, "it has no norm behind its stages, which is new")))
    check_fit({theirs[ours]: shape for ours, shape in shapes.items()}, values, source.path)
    for name, value in values.items():
        if value.dtype != np.float32:
            raise UserError(f"{source.path}: found {name} in {value.dtype}, expected floats")
    huggingfaces = naming in (HUGGINGFACE, HUGGINGFACE_BASE)
    for_people = "labels" in source.metadata or huggingfaces
    classes = tuple(source.metadata.get("labels" if for_people else "classes", ()))
    preprocessing = source.metadata.get("preprocessing")
    if huggingfaces:
        classes = huggingface.read_classes(source.path.parent, num_classes)
        preprocessing = huggingface.read_preprocessing(source.path.parent)
    palette = openmmlab.palette_from(source.metadata.get("palette"))
    reduce_zero_label = source.metadata.get("reduce_zero_label")
    category_ids = tuple(source.metadata.get("category_ids", ()))
    if naming.layout.backbone and not source.metadata:
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
    weights = ModelWeights(
        values={ours: values[theirs[ours]] for ours in shapes},
        model=model,
        num_classes=num_classes,
        in_channels=in_channels,
        head=head,
        classes=classes,
        preprocessing=preprocessing,
        origin=(OUR_METAFORMER if naming is MINDCV and VARIANTS[model].family else naming).label,
        path=source.path,
        for_people=for_people,
        note=note,
        palette=palette,
        reduce_zero_label=reduce_zero_label,
        category_ids=category_ids,
        limits=_limits(source, getattr(network, "limits", {})),
    )
    if imagenet.published(source.path) and not source.metadata:
        return weights.with_imagenet_names()
    return weights


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
    """What counts as an object by a checkpoint's metadata, where it is not as usual."""
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
    return {key: value for key, value in limits.items() if value != usual[key]}


def _head_order(source: Source) -> str:
    """Give the ``head`` that a checkpoint's metadata name; without metadata the official one."""
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
