"""The weights of a model with all that is known about them: their head anew, their mean."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..models import VARIANTS
from ..models.classifier import NORM_POOL, POOL_NORM
from ..models.dense.retinanet import PRIOR
from ..models.variants import FAMILIES
from ..runtime.counted import counted
from ..runtime.errors import UserError
from . import imagenet
from .names import (
    BACKBONE,
    DENSE_LAYOUTS,
    LINEAR_CLASSIFIER,
    METAFORMER,
    MLP_CLASSIFIER,
    NORM,
    layout_of_family,
)
from .openmmlab import Palette
from .variant import Kind, backbone_of, kind_of

MLP_HIDDEN = "head.fc1.weight"  # of an MLP head
HEAD_STD = 0.02  # of the official initialisation
# Of the last layers of official models of dense prediction: 0.01 in general, others as follows.
DENSE_STD = 0.01
BOX_STD = 0.001


@dataclass(frozen=True, eq=False)
class ModelWeights:
    """The weights of a model, and all that is known about it.

    Args:
        values: by this project's parameter names; float32.
        model: name of the variant, or of the segmentation model or detector.
        num_classes: outputs of the classifier, 0 for none.
        in_channels: channels of the images.
        head: "norm_pool" or "pool_norm", see :class:`PoolFormer`; a MetaFormer's is "pool_norm",
            and segmentation models and detectors have neither, "".
        classes: names of the outputs, as far as they are known.
        preprocessing: of the images, as ``EvalTransform.to_dict`` of the model's task tells it;
            None if unknown.
        origin: whose names the file had.
        path: of the file.
        for_people: the names in ``classes`` are for people, such as "tench, Tinca tinca"; else
            they are those of class folders, or of what is segmented or detected.
        note: what was taken of a training checkpoint, and what was left.
        palette: of a segmentation model, the classes' colours in red, green and blue, if known.
        reduce_zero_label: of a segmentation model, whether 0 in the images of labels it was trained
            on stands for no class; None if unknown.
        category_ids: of a detector, the numbers of the classes in COCO's files, if known.
        limits: of a detector, what counts as an object, by the keywords of the network, if known.
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
    palette: Palette = ()
    reduce_zero_label: bool | None = None
    category_ids: tuple[int, ...] = ()
    limits: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """What kind of network they are of."""
        return kind_of(self.model)

    @property
    def is_dense(self) -> bool:
        """Whether they are those of a segmentation model or detector, else of a classifier."""
        return self.kind != "classifier"

    @property
    def settings(self) -> dict[str, Any]:
        """The keywords of ``mindcv.create_model`` that give a network these weights fit."""
        facts = {"num_classes": self.num_classes, "in_channels": self.in_channels}
        if not self.is_dense:
            return facts | {"head": self.head}
        return facts | widths_in(self.values, self.kind) | dict(self.limits)

    @property
    def folders(self) -> tuple[str, ...] | None:
        """The class folders that the outputs stand for, None if they are not known."""
        return None if self.for_people else self.classes or None

    @property
    def classifier(self) -> set[str]:
        """The names of the parameters that have rows for each class, none without a classifier."""
        names = {*LINEAR_CLASSIFIER, *MLP_CLASSIFIER}
        names |= {name for layout in DENSE_LAYOUTS for name in layout.classifier}
        return names & self.values.keys()

    @property
    def metadata(self) -> dict[str, Any]:
        """What this project stores with the weights."""
        facts: dict[str, Any] = {
            "model": self.model,
            "num_classes": self.num_classes,
            "in_channels": self.in_channels,
        }
        if self.is_dense:
            segments = self.kind == "segmentation model"
            facts["task"] = "segmentation" if segments else "detection"
        else:
            facts["head"] = self.head
        if self.classes:
            facts["labels" if self.for_people else "classes"] = list(self.classes)
        if self.palette:
            facts["palette"] = [list(colour) for colour in self.palette]
        if self.reduce_zero_label is not None:
            facts["reduce_zero_label"] = self.reduce_zero_label
        if self.category_ids:
            facts["category_ids"] = list(self.category_ids)
        if self.limits:
            facts["limits"] = dict(self.limits)
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
        classes = counted(self.num_classes, "class") if self.num_classes else "no classifier"
        head = f", head {self.head}" if self.head else ""
        note = f"; {self.note}" if self.note else ""
        return (
            f"{self.origin} {self.model}, {classes}, "
            f"{counted(self.in_channels, 'input channel')}{head}{note}"
        )

    def check_kind(self, expected: Kind) -> None:
        """Refuse weights of another kind of network.

        Raises:
            UserError: they are of another.
        """
        if self.kind != expected:
            raise UserError(
                f"{self.path}: found weights of {self.model}, a {self.kind}, expected those of a "
                f"{expected}"
            )

    def backbone_alone(self) -> ModelWeights:
        """Give the backbone as a classifier's weights without a head.

        The norm before the head is new where they are not a classifier's: others have none.
        """
        values = {n: v for n, v in self.values.items() if not n.startswith("head.")}
        model = backbone_of(self.model)
        head = self.head
        if self.is_dense:
            blocks = {
                n.removeprefix(BACKBONE): v for n, v in values.items() if n.startswith(BACKBONE)
            }
            norms = [name for name in blocks if re.match(r"norm\d", name)]  # of the maps
            values = {name: value for name, value in blocks.items() if name not in norms}
            shape = (VARIANTS[model].dims[-1],)
            values |= {name: initial(name, shape) for name in NORM}
            layout = layout_of_family(VARIANTS[model].family)
            head = POOL_NORM if layout is METAFORMER else NORM_POOL
        return replace(
            self,
            values=values,
            model=model,
            num_classes=0,
            head=head,
            classes=(),
            preprocessing=None if self.is_dense else self.preprocessing,
            for_people=False,
            palette=(),
            reduce_zero_label=None,
            category_ids=(),
            limits={},
        )

    @property
    def last_layer(self) -> str:
        """What is new for other classes, in words."""
        if self.kind == "Mask R-CNN":
            return "heads' last layers"
        last = self.is_dense or MLP_HIDDEN in self.values
        return "head's last layer" if last else "head"

    def with_new_head(self, num_classes: int) -> ModelWeights:
        """Give the same backbone with a classifier, not yet trained, for that many classes.

        Of an MLP head, of a segmentation model and of a detector, the last layer is new, or all
        that have rows for each class. Weights are drawn from a normal distribution of deviation
        0.02, or as the official model has it, always the same one; biases are 0, but for a
        RetinaNet's.
        """
        if self.is_dense:
            return replace(
                self,
                values=self.values | self._new_last_layers(num_classes),
                num_classes=num_classes,
                classes=(),
                palette=(),
                reduce_zero_label=None,
                category_ids=(),
            )
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
        head = {n: initial(n, shape, random) for n, shape in shapes.items() if n not in kept}
        return replace(self, values=kept | head, num_classes=num_classes, classes=())

    def _new_last_layers(self, num_classes: int) -> dict[str, np.ndarray]:
        """Of a segmentation model or detector: what has rows for each class, as drawn anew."""
        random = np.random.default_rng(0)
        deviations = {"fc_reg": BOX_STD, "conv_logits": (2 / num_classes) ** 0.5}
        new = {}
        for name in (name for name in self.values if name in self.classifier):
            layer = name.split(".")[-2]
            background = int(layer == "fc_cls")  # a row of its own
            before, *rest = self.values[name].shape
            rows = (before - background) // self.num_classes * num_classes + background
            new[name] = initial(name, (rows, *rest), random, deviations.get(layer, DENSE_STD))
            if name.endswith("retina_cls.bias"):
                new[name] += np.float32(math.log(PRIOR / (1 - PRIOR)))
        return new


def initial(
    name: str,
    shape: tuple[int, ...],
    random: np.random.Generator | None = None,
    deviation: float = HEAD_STD,
) -> np.ndarray:
    """A parameter before training: a norm's, a bias, or with ``random`` a weight."""
    if random and len(shape) > 1:
        return random.normal(0, deviation, shape).astype(np.float32)
    return (np.ones if name.endswith(".gamma") else np.zeros)(shape, np.float32)


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


def widths_in(values: Mapping[str, np.ndarray], kind: Kind) -> dict[str, int]:
    """How wide and deep neck and head are, where the weights of dense prediction have them."""
    neck = "neck.lateral_convs.0.conv.weight"
    signs = {"channels": neck}
    if kind == "segmentation model":
        signs = {
            "neck_channels": neck,
            "head_channels": "decode_head.scale_heads.0.0.conv.weight",
        }
    found = {key: values[name].shape for key, name in signs.items() if name in values}
    widths = {key: shape[0] for key, shape in found.items() if shape and shape[0]}
    conv = re.compile(r"bbox_head\.cls_convs\.\d+\.conv\.weight")
    convs = sum(conv.fullmatch(name) is not None for name in values)
    return widths | ({"stacked_convs": convs} if kind == "RetinaNet" and convs else {})
