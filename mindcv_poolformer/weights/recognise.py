"""From a weights file of anybody's to the weights of a PoolFormer, complete or not at all."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mindcv
import numpy as np

from ..models import VARIANTS
from ..models.classifier import POOL_NORM
from ..runtime.checkpoint_file import check_fit
from ..runtime.errors import UserError
from . import huggingface
from .load import head_order
from .names import HUGGINGFACE, MINDCV, NAMINGS, TIMM, Naming
from .read import Source, read_source

HEAD_STD = 0.02  # of the official initialisation


@dataclass(frozen=True, eq=False)
class ModelWeights:
    """The weights of a PoolFormer, and all that is known about it.

    Args:
        values: by this project's parameter names; float32.
        model: name of the variant.
        num_classes: outputs of the classifier, 0 for none.
        in_channels: channels of the images.
        head: "norm_pool" or "pool_norm", see :class:`PoolFormer`.
        classes: names of the outputs, as far as they are known.
        preprocessing: of the images, as ``EvalTransform.to_dict`` tells it; None if unknown.
        origin: whose names the file had.
        path: of the file.
        for_people: the names in ``classes`` are for people, such as "tench, Tinca tinca"; else
            they are those of the class folders.
    """

    values: dict[str, np.ndarray]
    model: str
    num_classes: int
    in_channels: int
    head: str
    classes: tuple[str, ...]
    preprocessing: dict[str, Any] | None
    origin: str
    path: Path
    for_people: bool = False

    @property
    def folders(self) -> tuple[str, ...] | None:
        """The class folders that the outputs stand for, None if they are not known."""
        return None if self.for_people else self.classes or None

    @property
    def metadata(self) -> dict[str, Any]:
        """What this project stores with the weights."""
        facts = {
            "model": self.model,
            "num_classes": self.num_classes,
            "in_channels": self.in_channels,
            "head": self.head,
        }
        if self.classes:
            facts["labels" if self.for_people else "classes"] = list(self.classes)
        if self.preprocessing:
            facts["preprocessing"] = self.preprocessing
        return facts

    def __str__(self) -> str:
        classes = f"{self.num_classes} classes" if self.num_classes else "no classifier"
        return (
            f"{self.origin} {self.model}, {classes}, {self.in_channels} input channels, "
            f"head {self.head}"
        )

    def with_new_head(self, num_classes: int) -> ModelWeights:
        """Give the same backbone with a classifier, not yet trained, for that many classes.

        Its weight is drawn from a normal distribution of deviation 0.02, always the same one; its
        bias is 0.
        """
        weight, bias = MINDCV.classifier
        features = self.values[f"{MINDCV.norm}.gamma"].size
        drawn = np.random.default_rng(0).normal(0, HEAD_STD, (num_classes, features))
        head = {weight: drawn.astype(np.float32), bias: np.zeros(num_classes, np.float32)}
        return replace(self, values=self.values | head, num_classes=num_classes, classes=())


def read_weights(path: str | Path) -> ModelWeights:
    """Read and recognise a weights file of this project, MindCV, sail-sg, timm or Hugging Face.

    Args:
        path: a .ckpt, .safetensors or PyTorch file, or a Hugging Face folder.

    Raises:
        UserError: as :func:`read_source` and :func:`recognise`.
    """
    return recognise(read_source(path))


def recognise(source: Source) -> ModelWeights:
    """Find out whose PoolFormer it is, and which; rename its parameters.

    timm's weights want the head "pool_norm", since timm pools before it normalises.

    Raises:
        UserError: the names are nobody's, depths and dims are no variant's, or a parameter is
            missing, left over, or of the wrong shape.
    """
    naming = _find_naming(source)
    model = _find_variant(naming, source)
    num_classes = 0
    weight, bias = naming.classifier
    if weight in source.values:
        num_classes = len(np.atleast_1d(source.values[weight]))
    head = POOL_NORM if naming is TIMM else head_order(source.metadata, source.path)
    in_channels = source.values[naming.stem].shape[1]
    network = mindcv.create_model(
        model, num_classes=num_classes, in_channels=in_channels, head=head
    )
    shapes = {parameter.name: parameter for parameter in network.get_parameters()}
    depths = VARIANTS[model].depths
    theirs = dict(zip(MINDCV.names(depths), naming.names(depths), strict=True))
    check_fit({theirs[ours]: shape for ours, shape in shapes.items()}, source.values, source.path)
    for_people = "labels" in source.metadata or naming is HUGGINGFACE
    classes = tuple(source.metadata.get("labels" if for_people else "classes", ()))
    preprocessing = source.metadata.get("preprocessing")
    if naming is HUGGINGFACE:
        classes = huggingface.read_classes(source.path.parent, num_classes)
        preprocessing = huggingface.read_preprocessing(source.path.parent)
    if len(classes) > num_classes:
        raise UserError(
            f"{source.path}: found {len(classes)} class names, expected at most {num_classes}"
        )
    return ModelWeights(
        values={ours: source.values[theirs[ours]] for ours in shapes},
        model=model,
        num_classes=num_classes,
        in_channels=in_channels,
        head=head,
        classes=classes,
        preprocessing=preprocessing,
        origin=naming.label,
        path=source.path,
        for_people=for_people,
    )


def average(several: Mapping[Path, ModelWeights]) -> ModelWeights:
    """Give the mean of each parameter, taken in float64.

    Raises:
        UserError: the files are not weights of one model with the same classes and preprocessing.
    """
    (first_path, first), *others = several.items()
    for path, weights in others:
        for key in first.metadata | weights.metadata:
            found, expected = weights.metadata.get(key), first.metadata.get(key)
            if found != expected:
                raise UserError(
                    f"{path}: found {key} {found!r}, expected {expected!r} as in {first_path}"
                )
    values = {
        name: np.mean([w.values[name] for w in several.values()], axis=0, dtype=np.float64)
        for name in first.values
    }
    return replace(first, values={k: v.astype(np.float32) for k, v in values.items()})


def _find_naming(source: Source) -> Naming:
    for naming in NAMINGS:
        if naming.fits(source.values):
            return naming
    raise UserError(
        f"{source.path}: found parameters named {_some(source.values)}, expected those of a "
        f"PoolFormer as {', '.join(naming.label for naming in NAMINGS)} name them"
    )


def _find_variant(naming: Naming, source: Source) -> str:
    depths, stem = naming.depths(source.values), source.values[naming.stem].shape
    if len(stem) != 4 or 0 in stem:
        raise UserError(f"{source.path}: found {naming.stem} {stem}, expected (dims[0], C, 7, 7)")
    for name, variant in VARIANTS.items():
        if (variant.depths, variant.dims[0]) == (depths, stem[0]):
            return name  # its other dims are compared with all shapes
    known = "; ".join(f"{name} {v.depths}, {v.dims[0]}" for name, v in VARIANTS.items())
    raise UserError(
        f"{source.path}: found depths {depths} and a stem of {stem[0]} channels, expected those of "
        f"{known}"
    )


def _some(names: Collection[str]) -> str:
    listed = ", ".join(sorted(names)[:3])
    return f"{listed}, ... ({len(names)} in all)" if len(names) > 3 else listed or "nothing"
