"""Objects found on pictures in one call, by whatever holds a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .data.detection.fitting import EvalTransform, scale_factors
from .data.detection.mask_pasting import PastedMasks
from .data.detection.objects import THRESHOLD, Detection, colours_of
from .data.processor import AnyImage, ImageProcessor, are_several
from .export.bundle import DESCRIPTION
from .export.detector import DetectorBundle, detection, load_detector_bundle
from .runtime.environment import check_mindspore
from .runtime.errors import UserError

if TYPE_CHECKING:  # else imported where it is wanted: a bundle does without MindSpore
    from .export.graph import ServedTwoPasses
    from .models import MaskRCNN, RetinaNet


def detect(
    images: AnyImage | Sequence[AnyImage],
    model: str | Path | RetinaNet | MaskRCNN | DetectorBundle,
    threshold: float = THRESHOLD,
) -> Detection | list[Detection]:
    """Find the objects on a picture, or on each of several.

    A network sees each picture as in the official test, padded to the next multiples of 32, and
    compiles anew for each size; a bundle's graphs are of the sizes it was exported with. Pictures
    go through one by one.

    Args:
        images: paths, Pillow images or arrays, see :meth:`ImageProcessor.open`.
        model: as :func:`load_detector` takes or gives it. A path is read anew at each call.
        threshold: scores that an object exceeds; none below the model's own are found, which is
            0.05 unless its recipe says otherwise.

    Returns:
        a result in the picture's own pixels; a list of them for several. A class without a name is
        LABEL_<number>.

    Raises:
        UserError: the model or a picture cannot be read, or a picture is too small.
        ValueError: a picture fits nothing.
        TypeError: a picture is of a type that holds none.
    """
    if isinstance(model, (str, Path)):
        model = load_detector(model)
    pictures = ImageProcessor().open_all(images)
    if isinstance(model, DetectorBundle):
        results = [model.objects_on(picture, threshold) for picture in pictures]
    else:
        results = [_detection(model, np.asarray(picture), threshold) for picture in pictures]
    results = [_with_an_array(result) for result in results]
    return results if are_several(images) else results[0]


def _with_an_array(result: Detection) -> Detection:
    """The same, with masks that are there and not only pasted when they are asked for."""
    if isinstance(result.masks, PastedMasks):
        return replace(result, masks=result.masks.all())
    return result


def load_detector(model: str | Path) -> RetinaNet | MaskRCNN | DetectorBundle:
    """Give a model, ready to find objects on the device that MindSpore is set to.

    Args:
        model: a weights file or folder of anybody's, see :func:`read_weights`; or a bundle of
            export.py.

    Raises:
        UserError: it is neither, cannot be read, or is no detector's.
    """
    path = Path(model)
    if (path / DESCRIPTION).is_file():
        return load_detector_bundle(path)
    if not path.exists():
        raise UserError(
            f"model {model}: found no such file or folder, expected a checkpoint or a bundle"
        )
    check_mindspore(f"model {model}")
    from .weights import network_of, read_weights

    weights = read_weights(path)
    if weights.kind not in ("RetinaNet", "Mask R-CNN"):
        raise UserError(f"{path}: found weights of {weights.model}, expected a detector's")
    return network_of(weights).set_train(False)


def _detection(network: RetinaNet | MaskRCNN, pixels: np.ndarray, threshold: float) -> Detection:
    """What is on (H, W, 3); a network in training is put back into it."""
    import mindspore as ms
    from mindspore import Tensor

    from .data.detection.transforms import official_test
    from .models import MaskRCNN
    from .models.outputs import name_classes

    transform = official_test()
    if network.preprocessing is not None:
        transform = EvalTransform.from_dict(network.preprocessing)
    image, size = transform(pixels)
    scale = scale_factors(pixels.shape[0], pixels.shape[1], size)
    training = network.training
    network.set_train(False)
    try:
        inputs, shape, factors = Tensor(image[None]), Tensor([size], ms.int32), scale[None, :2]
        if isinstance(network, MaskRCNN):
            found = _two_passes(network)(inputs, shape, Tensor(factors))
        else:
            logits, deltas = network(inputs)
            found = network.select(logits, deltas, shape, Tensor(factors))
    finally:
        network.set_train(training)
    boxes, scores, labels, count, *masks = (each.asnumpy()[0].copy() for each in found)
    classes = tuple(name_classes(network.classes, network.num_classes))
    there = tuple(each[:count] for each in (boxes, scores, labels, *masks))
    size = pixels.shape[0], pixels.shape[1]
    return detection(there, size, classes, colours_of(classes), threshold)


def _two_passes(network: MaskRCNN) -> ServedTwoPasses:
    """A network's own: another Cell would be compiled anew for each picture."""
    from .export.graph import ServedTwoPasses

    own = network.__dict__  # past the Cell's __setattr__, which would make it one of its parts
    if "two_passes" not in own:
        own["two_passes"] = ServedTwoPasses(network)
    return own["two_passes"]
