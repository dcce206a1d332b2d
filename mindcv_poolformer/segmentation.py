"""Pictures segmented in one call, by whatever holds a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .data.processor import AnyImage, ImageProcessor, are_several
from .data.segmentation.fitting import EvalTransform
from .data.segmentation.labelling import Colour, Labelling, shares_of
from .data.segmentation.palette import palette_of
from .export.bundle import DESCRIPTION
from .export.label_map import label_map
from .export.segmenter import SegmenterBundle, load_segmenter_bundle
from .runtime.environment import check_mindspore
from .runtime.errors import UserError

if TYPE_CHECKING:  # else imported where it is wanted: a bundle does without MindSpore
    from .models import SemanticFPN


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The class of each pixel of a picture.

    Args:
        labels: (H, W) int32, indices of the classes: what Hugging Face's
            ``post_process_semantic_segmentation`` gives for the picture's own size.
        classes: the name of each class.
        palette: the colour of each class, red, green and blue, 0 to 255.
    """

    labels: np.ndarray
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]

    @property
    def shares(self) -> list[tuple[str, float]]:
        """The classes that are there with their shares of the pixels, the largest first."""
        return [(self.classes[index], share) for index, share in shares_of(self.labels)]

    def overlay(self, picture: Image.Image, opacity: float = 0.5) -> Image.Image:
        """Lay the classes' colours over the picture, upright as :func:`segment` saw it, in RGB."""
        return Labelling(self.palette).overlay(picture, self.labels, opacity)


def segment(
    images: AnyImage | Sequence[AnyImage], model: str | Path | SemanticFPN | SegmenterBundle
) -> Segmentation | list[Segmentation]:
    """Give the class of each pixel of a picture, or of each of several.

    A network sees each picture as in the official test (AlignResize: at its own shape, but for
    edges that are multiples of 32), and compiles anew for each size; a bundle's graphs are of the
    sizes it was exported with. Pictures go through one by one.

    Args:
        images: paths, Pillow images or arrays, see :meth:`ImageProcessor.open`.
        model: as :func:`load_segmenter` takes or gives it. A path is read anew at each call.

    Returns:
        a result of the picture's own height and width; a list of them for several. A class without
        a name is LABEL_<number>.

    Raises:
        UserError: the model or a picture cannot be read, or a picture is too small.
        ValueError: a picture fits nothing.
        TypeError: a picture is of a type that holds none.
    """
    if isinstance(model, (str, Path)):
        model = load_segmenter(model)
    pictures = ImageProcessor().open_all(images)
    if isinstance(model, SegmenterBundle):
        classes, palette = model.classes, model.labelling.palette
        maps = [model.label_map(picture) for picture in pictures]
    else:
        from .models.outputs import name_classes

        classes = tuple(name_classes(model.classes, model.num_classes))
        palette = model.palette or tuple(map(tuple, palette_of(classes).tolist()))
        maps = [_label_map(model, np.asarray(picture)) for picture in pictures]
    results = [Segmentation(labels, classes, palette) for labels in maps]
    return results if are_several(images) else results[0]


def load_segmenter(model: str | Path) -> SemanticFPN | SegmenterBundle:
    """Give a model, ready to segment on the device that MindSpore is set to.

    Args:
        model: a weights file or folder of anybody's, see :func:`read_weights`; or a bundle of
            export.py.

    Raises:
        UserError: it is neither, cannot be read, or is a classifier's.
    """
    path = Path(model)
    if (path / DESCRIPTION).is_file():
        return load_segmenter_bundle(path)
    if not path.exists():
        raise UserError(
            f"model {model}: found no such file or folder, expected a checkpoint or a bundle"
        )
    check_mindspore(f"model {model}")
    from .weights import network_of, read_weights

    weights = read_weights(path)
    if weights.kind != "segmentation model":
        raise UserError(f"{path}: found weights of {weights.model}, expected a segmentation model")
    return network_of(weights).set_train(False)


def _label_map(network: SemanticFPN, pixels: np.ndarray) -> np.ndarray:
    """The class of each pixel of (H, W, 3); a network in training is put back into it."""
    from mindspore import Tensor

    from .data.segmentation.transforms import official_test

    transform = official_test()
    if network.preprocessing is not None:
        transform = EvalTransform.from_dict(network.preprocessing)
    inputs = transform(pixels)[None]
    training = network.training
    network.set_train(False)
    try:
        logits = network(Tensor(inputs)).asnumpy()
    finally:
        network.set_train(training)
    return label_map(
        logits[0], (inputs.shape[2], inputs.shape[3]), (pixels.shape[0], pixels.shape[1])
    )
