"""A recipe's training step, compiled and counted without being run."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from mindspore import Tensor, nn

from ..config import Recipe
from ..runtime.counted import counted
from ..runtime.errors import UserError
from ..runtime.graph_dump import GraphDump, dumped_graphs, read_dump
from .step import TrainStep, WithLoss, build_step


def compile_step(
    recipe: Recipe,
    network: nn.Cell,
    with_loss: WithLoss,
    inputs: Sequence[Tensor],
    world_size: int = 1,
) -> tuple[TrainStep, GraphDump]:
    """Compile a step of one rank's batch.

    Args:
        recipe: in graph mode.
        network: as drawn.
        with_loss: puts the loss on it.
        inputs: of the step, without values.
        world_size: ranks that average their gradients.

    Raises:
        UserError: the recipe asks for PyNative mode.
    """
    if recipe.system.mode != 0:
        raise UserError(
            "compile_only: found it with mode 1, expected mode 0: PyNative has no graph"
        )
    rates = np.zeros(recipe.schedule.epoch_size, np.float32)
    simulated = bool(os.environ.get("MS_SIMULATION_LEVEL"))
    with dumped_graphs(front_end_only=not simulated) as folder:
        step = build_step(recipe, network.set_train(), with_loss, rates, 1, world_size)
        step.compile(*inputs)
        return step, read_dump(max(folder.rglob("*_validate_*.ir")))


def describe(recipe: Recipe, step: TrainStep, dump: GraphDump, images: Sequence[int]) -> list[str]:
    """What a step on images (N, C, H, W) consists of, in lines for people; bytes are of a rank."""
    count, _, height, width = images
    edges = f"{width}" if height == width else f"{width} x {height}"
    weights = sum(parameter.size for parameter in step.network_weights)
    trained = sum(parameter.size for parameter in step.weights)
    state = sum(parameter.nbytes for parameter in step.get_parameters())
    held = state + 4 * trained + dump.kept_for_backward
    return [
        f"{recipe.model.model}: {weights:,} parameters, {trained:,} of them trained; "
        f"{counted(count, 'image')} of {edges} px a step, "
        f"{recipe.system.amp_level}, for {recipe.system.device_target}",
        f"operators a step: {dump.operators:,}; unfused they read and write "
        f"{dump.bytes / 1e9:.1f} GB",
        f"memory, at least: {held / 1e9:.2f} GB, of which weights and moments {state / 1e9:.2f}, "
        f"gradients {4 * trained / 1e9:.2f}, maps kept for the backward pass "
        f"{dump.kept_for_backward / 1e9:.2f}",
    ]
