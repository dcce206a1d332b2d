"""Why a network says what it says of an image, by whatever holds the network."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops
from PIL import Image

from ..classification import load_model, processor_for
from ..data.processor import ImageProcessor
from ..export.bundle import DESCRIPTION
from ..models import StagedClassifier
from ..models.variants import check_image_size
from ..runtime.errors import UserError
from .gradcam import GradCam, places, stage_for
from .overlay import overlay


@dataclass(frozen=True, eq=False)
class Explanation:
    """What speaks for a class in an image.

    Args:
        label: number of the class.
        name: of the class.
        probability: that the network gives it.
        cam: the Grad-CAM map, (h, w) float32; all 0 where nothing speaks for the class.
    """

    label: int
    name: str
    probability: float
    cam: np.ndarray


class Explainer:
    """A network that is asked for its reasons: images to Grad-CAM maps and overlays.

    Args:
        model: as :func:`load_model` takes or gives it, a bundle apart: it has no gradients.
        stage: 0 to 3; by default the last one with maps of 4 x 4 places or more.
        image_size: edge of the square that the network sees, by default the processor's.
        processor: of the images, by default as :func:`processor_for` knows it.

    Raises:
        UserError: the model is a bundle or cannot be read; it has no classifier; it does not take
            that image size; the stage's map has one place.
    """

    def __init__(
        self,
        model: str | Path | StagedClassifier,
        *,
        stage: int | None = None,
        image_size: int | None = None,
        processor: ImageProcessor | None = None,
    ) -> None:
        if isinstance(model, StagedClassifier):
            self.name, network = type(model).__name__, model
        else:
            self.name, network = str(model), _load(model)
        if network.features_only or network.num_classes == 0:
            raise UserError(f"model {self.name}: found no classifier, expected one")
        self.network = network
        self.processor = processor or processor_for(network)
        if image_size is not None:
            transform = replace(self.processor.transform, image_size=image_size)
            self.processor = ImageProcessor.from_transform(transform)
        size = self.processor.transform.image_size
        if network.variant:
            check_image_size(network.variant, size, "image_size")
        self.stage = stage_for(size) if stage is None else stage
        self.places = places(size, self.stage)
        if self.places < 2:
            raise UserError(
                f"stage: found {self.stage}, of whose map at {size} px one place is all, "
                f"expected an earlier stage, or an image size of {4 * 2**self.stage + 3} or more"
            )
        self.cam = GradCam(network, self.stage)

    def label_of(self, text: str) -> int:
        """The number of a class by its name, or else by its number.

        Raises:
            UserError: there is none, or several have that name.
        """
        names = list(self.network.id2label.values())
        found = [label for label, name in enumerate(names) if name == text]
        if len(found) > 1:
            numbers = ", ".join(map(str, found))
            raise UserError(
                f"classes: found {text!r} {len(found)} times, expected one of {numbers}"
            )
        if found:
            return found[0]
        if text.isdecimal() and int(text) < len(names):
            return int(text)
        near = difflib.get_close_matches(text, names, 3)
        such = f", such as {', '.join(map(repr, near))}" if near else ""
        raise UserError(
            f"classes: found {text!r}, expected a name{such} or a number from 0 to "
            f"{len(names) - 1} of a class of {self.name}"
        )

    def explain(
        self, image: Image.Image, labels: Sequence[int] | None = None, top_k: int = 1
    ) -> list[Explanation]:
        """Explain an image, as :meth:`ImageProcessor.open` gives it.

        Args:
            image: at its own size.
            labels: numbers of classes; by default the ``top_k`` most probable, at most all.
        """
        pixels = self.processor([image], return_tensors="np")
        logits = self.network(Tensor(pixels)).astype(ms.float32)
        row = ops.softmax(logits, -1).asnumpy()[0]
        if labels is None:
            labels = np.argsort(-row, kind="stable")[:top_k].tolist()
        cams = self.cam.maps(np.repeat(pixels, len(labels), 0), labels)
        names = self.network.id2label
        return [
            Explanation(label, names[label], float(row[label]), cam)
            for label, cam in zip(labels, cams, strict=True)
        ]

    def overlay(
        self, picture: Image.Image, explanation: Explanation, alpha: float = 0.6
    ) -> Image.Image:
        """The picture of a whole image under the map of an explanation of it."""
        transform = self.processor.transform
        return overlay(picture, explanation.cam, self.cam.stride, transform, alpha)


def _load(model: str | Path) -> StagedClassifier:
    if (Path(model) / DESCRIPTION).is_file():
        raise UserError(
            f"model {model}: found a bundle, whose graph has no gradients, expected the checkpoint "
            "that it was exported from"
        )
    network = load_model(model)
    assert isinstance(network, StagedClassifier)  # it is no bundle
    return network
