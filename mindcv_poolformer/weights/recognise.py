"""From a weights file of anybody's to the weights of a model, complete or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mindcv
import numpy as np

from ..models import VARIANTS
from ..models.classifier import NORM_POOL, POOL_NORM
from ..models.variants import FAMILIES
from ..runtime.checkpoint_file import check_fit
from ..runtime.errors import UserError
from . import huggingface, imagenet
from .names import (
    HUGGINGFACE,
    HUGGINGFACE_BASE,
    LINEAR_CLASSIFIER,
    METAFORMER,
    MINDCV,
    MLP_CLASSIFIER,
    NORM,
    OUR_METAFORMER,
    TIMM,
)
from .read import Source, read_source
from .unwrap import find_network, told, unwrap, without_state
from .variant import variant_of

HEAD_STD = 0.02  # of the official initialisation


@dataclass(frozen=True, eq=False)
class ModelWeights:
    """The weights of a model, and all that is known about it.

    Args:
        values: by this project's parameter names; float32.
        model: name of the variant.
        num_classes: outputs of the classifier, 0 for none.
        in_channels: channels of the images.
        head: "norm_pool" or "pool_norm", see :class:`PoolFormer`; a MetaFormer's is "pool_norm".
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
    note: str = ""

    @property
    def folders(self) -> tuple[str, ...] | None:
        """The class folders that the outputs stand for, None if they are not known."""
        return None if self.for_people else self.classes or None

    @property
    def classifier(self) -> set[str]:
        """The names of the parameters that have a row for each class, none without a classifier."""
        return {*LINEAR_CLASSIFIER, *MLP_CLASSIFIER} & self.values.keys()

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

    def with_imagenet_names(self) -> ModelWeights:
        """Give the same with ImageNet-1K's names of the outputs, if these are 1,000 without names.

        To be called where weights are known to be published ones, see :func:`imagenet.published`.
        """
        names = imagenet.names()
        if self.classes or self.num_classes != len(names):
            return self
        return replace(self, classes=names, for_people=True)

    def __str__(self) -> str:
        classes = f"{self.num_classes} classes" if self.num_classes else "no classifier"
        note = f"; {self.note}" if self.note else ""
        return (
            f"{self.origin} {self.model}, {classes}, {self.in_channels} input channels, "
            f"head {self.head}{note}"
        )

    def with_new_head(self, num_classes: int) -> ModelWeights:
        """Give the same backbone with a classifier, not yet trained, for that many classes.

        Of an MLP head the last layer is new, as in timm. Weights are drawn from a normal
        distribution of deviation 0.02, always the same one; biases are 0.
        """
        family = VARIANTS[self.model].family
        features = self.values[NORM[0]].size
        if family and FAMILIES[family].mlp_head:
            hidden = 4 * features
            shapes = {
                "head.fc1.weight": (hidden, features),
                "head.fc1.bias": (hidden,),
                "head.norm.gamma": (hidden,),
                "head.norm.beta": (hidden,),
            }
            weight, bias = MLP_CLASSIFIER
        else:
            hidden, shapes = features, {}
            weight, bias = LINEAR_CLASSIFIER
        kept = {name: value for name, value in self.values.items() if name not in self.classifier}
        shapes |= {weight: (num_classes, hidden), bias: (num_classes,)}
        random = np.random.default_rng(0)
        head = {n: _initial(n, shape, random) for n, shape in shapes.items() if n not in kept}
        return replace(self, values=kept | head, num_classes=num_classes, classes=())


def _initial(
    name: str, shape: tuple[int, ...], random: np.random.Generator | None = None
) -> np.ndarray:
    if random and len(shape) > 1:
        return random.normal(0, HEAD_STD, shape).astype(np.float32)
    return (np.ones if name.endswith(".gamma") else np.zeros)(shape, np.float32)


def read_weights(path: str | Path, model: str | None = None) -> ModelWeights:
    """Read and recognise weights of this project, MindCV, sail-sg, timm, Hugging Face, MMPretrain.

    Checkpoints of training are such files too: ``note`` tells what of them was taken.

    Args:
        path: a .ckpt, .safetensors or PyTorch file, or a Hugging Face folder.
        model: the variant to take these weights for, if they fit it; see :func:`variant_of`.

    Raises:
        UserError: as :func:`read_source` and :func:`recognise`.
    """
    return recognise(read_source(path), model)


def recognise(source: Source, model: str | None = None) -> ModelWeights:
    """Find out whose model it is, and which; rename its parameters.

    timm's weights want the head "pool_norm", since timm pools before it normalises. Files that are
    published ones by their names get the names of ImageNet-1K's classes, see
    :func:`imagenet.published`.

    Args:
        source: the weights as they are.
        model: as :func:`read_weights` has it.

    Raises:
        UserError: the names are nobody's, as :func:`variant_of`, or a parameter is missing, left
            over, or of the wrong shape.
    """
    naming, prefix = find_network(source)
    source = unwrap(source, prefix)
    num_classes = 0
    weight = naming.theirs(naming.classifier(source.values)[0])
    if weight in source.values:
        num_classes = len(np.atleast_1d(source.values[weight]))
    model = variant_of(naming, source, num_classes, model)
    pools_first = naming is TIMM or naming.layout is METAFORMER
    head = POOL_NORM if pools_first else _head_order(source)
    in_channels = source.values[naming.stem].shape[1]
    network = mindcv.create_model(
        model, num_classes=num_classes, in_channels=in_channels, head=head
    )
    shapes = {parameter.name: parameter for parameter in network.get_parameters()}
    theirs = {ours: naming.theirs(ours) for ours in shapes}
    source = without_state(source, set(theirs.values()))
    note = told(source, prefix)
    values = _linear(source.values) if naming.flat else source.values
    if naming is HUGGINGFACE_BASE and not (num_classes or theirs[NORM[0]] in values):
        values = values | {theirs[n]: _initial(n, shapes[n].shape) for n in NORM}
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
    )
    if imagenet.published(source.path) and not source.metadata:
        return weights.with_imagenet_names()
    return weights


def average(several: Mapping[Path, ModelWeights]) -> ModelWeights:
    """Give the mean of each parameter, taken in float64.

    Names for people may be missing in some of the files: the first of them that has any names the
    mean.

    Raises:
        UserError: the files are not weights of one model with the same classes and preprocessing.
    """
    (first_path, first), *others = several.items()
    for path, weights in others:
        for key in first.metadata | weights.metadata:
            found, expected = weights.metadata.get(key), first.metadata.get(key)
            if key == "labels" and None in (found, expected):
                continue
            if found != expected:
                raise UserError(
                    f"{path}: found {key} {found!r}, expected {expected!r} as in {first_path}"
                )
    values = {
        name: np.mean([w.values[name] for w in several.values()], axis=0, dtype=np.float64)
        for name in first.values
    }
    named = next((w for w in several.values() if w.classes), first)
    return replace(
        first,
        values={k: v.astype(np.float32) for k, v in values.items()},
        classes=named.classes,
        for_people=named.for_people,
    )


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
