"""What a network costs, read off its Cells: parameters, multiply-accumulates, activations.

The rule is fvcore's (facebookresearch/fvcore, fvcore/nn/jit_handles.py), by which the authors
count: a convolution or a matrix product counts its multiply-accumulates and its output elements, a
GroupNorm five for each element; pooling, activations, scales and residuals count nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from mindspore import nn

from .classifier import NORM_POOL, StagedClassifier
from .deploy import to_deploy
from .hybrid import PlacesDense
from .parts.mixers import HEAD_CHANNELS, Attention, RandomMixing

FVCORE_NORM = 5


@dataclass(frozen=True)
class Cost:
    """Of a part of a network, for one image.

    Args:
        parameters: all of them, frozen ones too.
        macs: multiply-accumulates.
        activations: elements that convolutions and matrix products give.
    """

    parameters: int = 0
    macs: int = 0
    activations: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.parameters + other.parameters,
            self.macs + other.macs,
            self.activations + other.activations,
        )


@dataclass(frozen=True)
class Part:
    """A part of a network: a stage with the strided convolution before it, or the head.

    Args:
        name: "stage 1" to "stage 4", or "head".
        blocks: in the stage; 0 for the head.
        mixer: its token mixer; empty for the head.
        shape: of what it gives, (channels, height, width) or (classes,).
        cost: of all of it.
    """

    name: str
    blocks: int
    mixer: str
    shape: tuple[int, ...]
    cost: Cost


def parts_of(network: StagedClassifier, image_size: int) -> list[Part]:
    """Give the parts of a network with a classifier, for square images of that edge."""
    side, parts = image_size, []
    for stage, channels in enumerate(network.dims):
        size, stride, padding = (7, 4, 2) if stage == 0 else (3, 2, 1)
        side = (side + 2 * padding - size) // stride + 1
        costs = (cost_of(cell, channels, side * side) for cell in network.cells_of(stage))
        shape = (channels, side, side)
        mixer = network.mixer_of(stage)
        name = f"stage {stage + 1}"
        parts.append(Part(name, network.depths[stage], mixer, shape, sum(costs, Cost())))
    places = side * side if network.head_order == NORM_POOL else 1
    head = cost_of(network.norm, network.num_features, places)
    head += cost_of(network.head, network.num_features, 1)
    return [*parts, Part("head", 0, "", (network.num_classes,), head)]


def cost_of(root: nn.Cell, channels: int, places: int) -> Cost:
    """Give the cost of a Cell and all in it on a map of so many channels and places."""
    total = Cost(sum(parameter.size for parameter in root.get_parameters()))
    for _, cell in root.cells_and_names():
        if isinstance(cell, (RandomMixing, PlacesDense)):
            total += _products(places, channels, places)
        elif isinstance(cell, nn.Dense):
            total += _products(cell.in_channels, cell.out_channels, places)
        elif isinstance(cell, nn.Conv2d):
            window = prod(cell.kernel_size) * cell.in_channels // cell.group
            total += _products(window, cell.out_channels, places)
        elif isinstance(cell, Attention):
            inner = cell.proj.in_channels
            total += _products(HEAD_CHANNELS, places * inner // HEAD_CHANNELS, places)
            total += _products(places, inner, places)
        elif isinstance(cell, nn.GroupNorm):
            total += Cost(macs=FVCORE_NORM * channels * places)
    return total


def _products(inputs: int, outputs: int, places: int) -> Cost:
    return Cost(macs=inputs * outputs * places, activations=outputs * places)


def deploy_parameters(network: StagedClassifier) -> int:
    """Give the number of parameters of a network's deploy form."""
    return sum(parameter.size for parameter in to_deploy(network).get_parameters())
