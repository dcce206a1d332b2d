"""Grad-CAM (arXiv 1610.02391): which places of an image speak for a class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mindspore import Tensor, nn, ops
from PIL import Image

from ..models.classifier import StagedClassifier


class GradCam(nn.Cell):
    """Images (N, C, H, W) and a class for each to maps (N, h, w), float32, 0 and up.

    A map is relu(sum over c of mean(d logit / d A_c) A_c), with A the output of a stage before any
    further norm. Only what lies above A is differentiated. Puts the network out of training.

    Args:
        network: with a classifier.
        stage: 0 to 3; its maps are as large as the image over 4, 8, 16 or 32.

    Raises:
        ValueError: the network has no classifier, or not that stage.
    """

    def __init__(self, network: StagedClassifier, stage: int = 3) -> None:
        super().__init__(auto_prefix=False)  # the network's parameters keep their names
        if network.features_only or network.num_classes == 0:
            raise ValueError("model: found no classifier, expected one")
        if not 0 <= stage < len(network.depths):
            raise ValueError(f"stage: found {stage}, expected 0 to {len(network.depths) - 1}")
        self.network, self.stage, self.stride = network, stage, 4 * 2**stage
        self.above = _Above(network, stage)
        self.gradient = ops.GradOperation()
        self.set_train(False)

    def construct(self, x: Tensor, chosen: Tensor) -> Tensor:
        """``chosen`` is one-hot, (N, num_classes)."""
        activations = self.network.stage_maps(x)[self.stage]
        gradients = self.gradient(self.above)(activations, chosen)
        weights = gradients.mean((2, 3), keep_dims=True)
        return ops.relu((weights * activations).sum(1))

    def maps(self, images: np.ndarray, labels: Sequence[int]) -> np.ndarray:
        """The maps of ``images``, (N, C, H, W) float32, for the class ``labels`` tells of each.

        Raises:
            ValueError: a label is not a number of a class.
        """
        classes = self.network.num_classes
        for label in labels:
            if not 0 <= label < classes:
                raise ValueError(f"labels: found {label}, expected 0 to {classes - 1}")
        chosen = np.eye(classes, dtype=np.float32)[list(labels)]
        # Copied, since the next run may use the graph's memory.
        return self(Tensor(images), Tensor(chosen)).asnumpy().copy()


class _Above(nn.Cell):
    """From a stage's map (N, C, h, w) to the sum of the chosen logits.

    Samples do not meet in these networks, so the sum's gradient is that of each sample's own logit.
    """

    def __init__(self, network: StagedClassifier, stage: int) -> None:
        super().__init__(auto_prefix=False)
        self.network, self.stage = network, stage

    def construct(self, maps: Tensor, chosen: Tensor) -> Tensor:
        return (self.network.logits_after(maps, self.stage) * chosen).sum()


def stage_for(image_size: int) -> int:
    """The last stage that has a map of 4 x 4 places or more for an image of that edge.

    224 pixels give the last, 32 pixels the second: a map of one place would tell nothing.
    """
    return max((stage for stage in range(4) if places(image_size, stage) >= 4), default=0)


def places(image_size: int, stage: int) -> int:
    """The edge of a stage's map of a square image of that edge, in places."""
    edge = (image_size - 3) // 4 + 1  # 7 x 7 in steps of 4, padded by 2; then 3 x 3, 2 and 1
    for _ in range(stage):
        edge = (edge + 1) // 2
    return edge


def heat(
    cam: np.ndarray, stride: int, image_size: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """A map (h, w) laid over the image it is of, and scaled so that its peak is 1.

    All zeros, where nothing speaks for the class, stay zeros.

    Args:
        cam: the map.
        stride: pixels between its places; place i is centred at pixel ``stride * i + 1``, since the
            strided convolutions lean to the left and top.
        image_size: of what the network saw, (width, height).
        size: of the result, (width, height).
    """
    peak = cam.max()
    scaled = (cam / peak if peak > 0 else cam).astype(np.float32)
    border = Image.fromarray(np.pad(scaled, ((0, 1), (0, 1)), "edge"))
    begin = 0.5 - 1.5 / stride  # of the image, in places
    box = (begin, begin, begin + image_size[0] / stride, begin + image_size[1] / stride)
    return np.asarray(border.resize(size, Image.Resampling.BICUBIC, box)).clip(0, 1)
