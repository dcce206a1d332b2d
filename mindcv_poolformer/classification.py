"""Images classified in one call, by whatever holds a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .data.preprocess import EvalTransform
from .data.processor import AnyImage, ImageProcessor, are_several
from .export.bundle import DESCRIPTION, Bundle, load_bundle
from .runtime.counted import counted
from .runtime.environment import check_mindspore
from .runtime.errors import UserError

if TYPE_CHECKING:  # else imported where it is wanted: a bundle does without MindSpore
    from .models import StagedClassifier

Ranking = list[tuple[str, float]]


def classify(
    images: AnyImage | Sequence[AnyImage],
    model: str | Path | StagedClassifier | Bundle,
    *,
    top_k: int = 5,
    processor: ImageProcessor | None = None,
) -> Ranking | list[Ranking]:
    """Give the most probable classes of an image, or of each of several.

    Each call with a path or a name reads the model anew; for many calls take :func:`load_model`.

    Args:
        images: paths, Pillow images or arrays, see :class:`ImageProcessor`; all go through the
            network in one batch.
        model: as :func:`load_model` takes or gives it.
        top_k: number of classes, at most all.
        processor: of the images; by default as the checkpoint or the bundle tells, or else as
            published with the variant.

    Returns:
        (label, probability) pairs, the most probable first; a list of such lists for several
        images. The label is LABEL_<number> for a class without a name.

    Raises:
        UserError: the model or an image cannot be read, or it is not known how to prepare images.
        ValueError: ``top_k`` is below 1; an image fits nothing; a model has no classifier.
        TypeError: an image is of a type that holds none.
    """
    if top_k < 1:
        raise ValueError(f"top_k: found {top_k}, expected 1 or more")
    if isinstance(model, (str, Path)):
        model = load_model(model)
    prepare = processor or processor_for(model)
    if isinstance(model, Bundle):
        labels = list(model.classes)
        rows = model.classify(prepare.open_all(images))
    else:
        labels = list(model.id2label.values())
        rows = _probabilities(model, prepare(images, return_tensors="np"))
    best = np.argsort(-rows, axis=1, kind="stable")[:, :top_k]
    rankings = [[(labels[i], float(row[i])) for i in order] for order, row in zip(best, rows)]
    return rankings if are_several(images) else rankings[0]


def load_model(model: str | Path) -> StagedClassifier | Bundle:
    """Give a model, ready to classify on the device that MindSpore is set to.

    Args:
        model: a weights file or folder of anybody's, see :func:`read_weights`; a bundle of
            export.py; or a variant, such as poolformer_s12, for its published weights. A file or
            folder goes before a variant of the same name.

    Raises:
        UserError: there is none of these, or it cannot be read.
    """
    path = Path(model)
    if (path / DESCRIPTION).is_file():
        return load_bundle(path)
    check_mindspore(f"model {model}")
    from .models import VARIANTS
    from .weights import network_of, read_weights
    from .weights.pretrained import read_published

    if path.exists():
        weights = read_weights(path)
        weights.check_kind("classifier")
    elif str(model) in VARIANTS:
        weights = read_published(str(model))
    else:
        raise UserError(
            f"model {model}: found no such file or folder, expected a checkpoint, a bundle, or one "
            f"of {', '.join(VARIANTS)}"
        )
    return network_of(weights).set_train(False)


def processor_for(model: StagedClassifier | Bundle) -> ImageProcessor:
    """Give the preprocessing that a model's bundle or weights tell, or else its variant's.

    Raises:
        UserError: neither is known, or the variant's is for other channels.
    """
    if isinstance(model, Bundle):
        return ImageProcessor.from_transform(model.transform)
    if model.preprocessing is not None:
        from .models.variants import check_image_size

        transform = EvalTransform.from_dict(model.preprocessing)
        if model.variant:
            check_image_size(model.variant, transform.image_size, "preprocessing")
        return ImageProcessor.from_transform(transform)
    if not model.variant or model.in_channels != 3:
        raise UserError(
            f"preprocessing: found none for depths {model.depths} and "
            f"{counted(model.in_channels, 'input channel')}, expected it in the checkpoint, or as "
            "processor="
        )
    return ImageProcessor.for_model(model.variant)


def _probabilities(network: StagedClassifier, images: np.ndarray) -> np.ndarray:
    """(N, num_classes) float32; a network in training is put back into it."""
    import mindspore as ms
    from mindspore import Tensor, ops

    if network.features_only or network.num_classes == 0:
        raise ValueError("model: found no classifier, expected one")
    training = network.training
    network.set_train(False)
    try:
        logits = network(Tensor(images))
    finally:
        network.set_train(training)
    return ops.softmax(logits.astype(ms.float32), -1).asnumpy()
