"""From a weights file of anybody's to the weights of a model, complete or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mindcv
import numpy as np

from ..data.segmentation import ade20k
from ..models import SEGMENTERS, VARIANTS
from ..models.classifier import NORM_POOL, POOL_NORM
from ..models.variants import FAMILIES
from ..runtime.checkpoint_file import check_fit
from ..runtime.errors import UserError
from . import huggingface, imagenet, mmsegmentation
from .mmsegmentation import Palette
from .names import (
    BACKBONE,
    HUGGINGFACE,
    HUGGINGFACE_BASE,
    LINEAR_CLASSIFIER,
    METAFORMER,
    MINDCV,
    MLP_CLASSIFIER,
    NORM,
    OUR_METAFORMER,
    SEGMENTER_CLASSIFIER,
    TIMM,
    layout_of_family,
)
from .read import Source, read_source
from .unwrap import find_network, told, unwrap, without_state
from .variant import backbone_of, variant_of

HEAD_STD = 0.02  # of the official initialisation
SEGMENTER_STD = 0.01  # of its last layer


@dataclass(frozen=True, eq=False)
class ModelWeights:
    """The weights of a model, and all that is known about it.

    Args:
        values: by this project's parameter names; float32.
        model: name of the variant, or of the segmentation model.
        num_classes: outputs of the classifier, 0 for none.
        in_channels: channels of the images.
        head: "norm_pool" or "pool_norm", see :class:`PoolFormer`; a MetaFormer's is "pool_norm",
            and a segmentation model has neither, "".
        classes: names of the outputs, as far as they are known.
        preprocessing: of the images, as ``EvalTransform.to_dict`` of the model's task tells it;
            None if unknown.
        origin: whose names the file had.
        path: of the file.
        for_people: the names in ``classes`` are for people, such as "tench, Tinca tinca"; else
            they are those of the class folders, or of a segmentation model's classes.
        note: what was taken of a training checkpoint, and what was left.
        palette: of a segmentation model, the classes' colours in red, green and blue, if known.
        reduce_zero_label: of a segmentation model, whether 0 in the images of labels it was trained
            on stands for no class; None if unknown.
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

    @property
    def segments(self) -> bool:
        """Whether they are those of a segmentation model, else of a classifier."""
        return self.model in SEGMENTERS

    @property
    def settings(self) -> dict[str, Any]:
        """The keywords of ``mindcv.create_model`` that give a network these weights fit."""
        facts = {"num_classes": self.num_classes, "in_channels": self.in_channels}
        return facts | (_widths(self.values) if self.segments else {"head": self.head})

    @property
    def folders(self) -> tuple[str, ...] | None:
        """The class folders that the outputs stand for, None if they are not known."""
        return None if self.for_people else self.classes or None

    @property
    def classifier(self) -> set[str]:
        """The names of the parameters that have a row for each class, none without a classifier."""
        names = {*LINEAR_CLASSIFIER, *MLP_CLASSIFIER, *SEGMENTER_CLASSIFIER}
        return names & self.values.keys()

    @property
    def metadata(self) -> dict[str, Any]:
        """What this project stores with the weights."""
        facts: dict[str, Any] = {
            "model": self.model,
            "num_classes": self.num_classes,
            "in_channels": self.in_channels,
        }
        facts |= {"task": "segmentation"} if self.segments else {"head": self.head}
        if self.classes:
            facts["labels" if self.for_people else "classes"] = list(self.classes)
        if self.palette:
            facts["palette"] = [list(colour) for colour in self.palette]
        if self.reduce_zero_label is not None:
            facts["reduce_zero_label"] = self.reduce_zero_label
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
        head = f", head {self.head}" if self.head else ""
        note = f"; {self.note}" if self.note else ""
        return (
            f"{self.origin} {self.model}, {classes}, {self.in_channels} input channels{head}{note}"
        )

    def check_task(self, segments: bool) -> None:
        """Refuse weights of another task.

        Args:
            segments: expect those of a segmentation model, else of a classifier.

        Raises:
            UserError: they are others.
        """
        kinds = {False: "a classifier", True: "a segmentation model"}
        if self.segments != segments:
            raise UserError(
                f"{self.path}: found weights of {self.model}, {kinds[self.segments]}, expected "
                f"those of {kinds[segments]}"
            )

    def backbone_alone(self) -> ModelWeights:
        """Give the backbone as a classifier's weights without a head.

        The norm before the head is new where they are a segmentation model's, which has none.
        """
        values = {n: v for n, v in self.values.items() if not n.startswith("head.")}
        model = backbone_of(self.model)
        head = self.head
        if self.segments:
            blocks = {
                n.removeprefix(BACKBONE): v for n, v in values.items() if n.startswith(BACKBONE)
            }
            norms = [name for name in blocks if re.match(r"norm\d", name)]  # of the maps
            values = {name: value for name, value in blocks.items() if name not in norms}
            shape = (VARIANTS[model].dims[-1],)
            values |= {name: _initial(name, shape) for name in NORM}
            layout = layout_of_family(VARIANTS[model].family)
            head = POOL_NORM if layout is METAFORMER else NORM_POOL
        return replace(
            self,
            values=values,
            model=model,
            num_classes=0,
            head=head,
            classes=(),
            preprocessing=None if self.segments else self.preprocessing,
            for_people=False,
            palette=(),
            reduce_zero_label=None,
        )

    def with_new_head(self, num_classes: int) -> ModelWeights:
        """Give the same backbone with a classifier, not yet trained, for that many classes.

        Of an MLP head, and of a segmentation model, the last layer is new. Weights are drawn from a
        normal distribution of deviation 0.02, or 0.01 as official segmentation models have it,
        always the same one; biases are 0.
        """
        if self.segments:
            weight, bias = SEGMENTER_CLASSIFIER
            shape = (num_classes, *self.values[weight].shape[1:])
            random = np.random.default_rng(0)
            head = {
                weight: _initial(weight, shape, random, SEGMENTER_STD),
                bias: _initial(bias, shape[:1]),
            }
            return replace(
                self,
                values=self.values | head,
                num_classes=num_classes,
                classes=(),
                palette=(),
                reduce_zero_label=None,
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
        head = {n: _initial(n, shape, random) for n, shape in shapes.items() if n not in kept}
        return replace(self, values=kept | head, num_classes=num_classes, classes=())


def _initial(
    name: str,
    shape: tuple[int, ...],
    random: np.random.Generator | None = None,
    deviation: float = HEAD_STD,
) -> np.ndarray:
    if random and len(shape) > 1:
        return random.normal(0, deviation, shape).astype(np.float32)
    return (np.ones if name.endswith(".gamma") else np.zeros)(shape, np.float32)


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
    official ones may be, get those of ADE20K.

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
    in_channels = source.values[naming.stem].shape[1]
    head = ""
    settings: dict[str, Any]
    if naming.layout.backbone:
        source = mmsegmentation.opened(source)
        num_classes = max(num_classes, 1)  # without any, the shapes below tell
        settings = _widths(source.values)
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
    palette = mmsegmentation.palette_from(source.metadata.get("palette"))
    reduce_zero_label = source.metadata.get("reduce_zero_label")
    if naming.layout.backbone and not source.metadata:
        classes = mmsegmentation.classes_in(source.meta)
        palette = mmsegmentation.palette_in(source.meta)
        classes, palette, reduce_zero_label = _scene_classes(classes, palette, num_classes)
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
    )
    if imagenet.published(source.path) and not source.metadata:
        return weights.with_imagenet_names()
    return weights


def _widths(values: Mapping[str, np.ndarray]) -> dict[str, int]:
    """The channels of a segmentation model's neck and head, where the weights have these parts."""
    signs = {
        "neck_channels": "neck.lateral_convs.0.conv.weight",
        "head_channels": "decode_head.scale_heads.0.0.conv.weight",
    }
    found = {key: values[name].shape for key, name in signs.items() if name in values}
    return {key: shape[0] for key, shape in found.items() if shape and shape[0]}


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
    return names, palette or mmsegmentation.palette_from(ade20k.colours().tolist()), True


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
