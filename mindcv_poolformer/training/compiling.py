"""A recipe's training step, compiled and counted without being run."""

from __future__ import annotations

import os
import time

import mindspore as ms
import numpy as np
from mindspore import Tensor

from ..config import Recipe
from ..data import splits
from ..runtime.errors import UserError
from ..runtime.graph_dump import GraphDump, dumped_graphs, read_dump
from .network import create_network
from .step import TrainStep, build_step


def compile_only(recipe: Recipe) -> None:
    """Compile the step that a recipe asks for, and print what it consists of.

    Raises:
        UserError: the recipe asks for PyNative mode, or its images are needed and not there.
    """
    if recipe.system.mode != 0:
        raise UserError(
            "compile_only: found it with mode 1, expected mode 0: PyNative has no graph"
        )
    classes = recipe.model.num_classes or len(splits.training_images(recipe.data, None).classes)
    started = time.perf_counter()
    step, dump = compile_step(recipe, classes)
    seconds = time.perf_counter() - started
    print(*describe(recipe, step, dump), f"compiled in {seconds:.0f} s", sep="\n")


def compile_step(
    recipe: Recipe, num_classes: int, world_size: int = 1
) -> tuple[TrainStep, GraphDump]:
    """Compile a step of one rank's batch.

    Args:
        recipe: in graph mode.
        num_classes: outputs of the network.
        world_size: ranks that average their gradients.
    """
    batch, edge = recipe.data.batch_size, recipe.augmentation.image_resize
    images = Tensor(shape=(batch, recipe.model.in_channels, edge, edge), dtype=ms.float32)
    targets = Tensor(shape=(batch, num_classes), dtype=ms.float32)
    rates = np.zeros(recipe.schedule.epoch_size, np.float32)
    simulated = bool(os.environ.get("MS_SIMULATION_LEVEL"))
    with dumped_graphs(front_end_only=not simulated) as folder:
        network = create_network(recipe, num_classes).set_train()
        drop_path = Tensor(shape=(len(network.drop_path_rates), 2, batch), dtype=ms.float32)
        step = build_step(recipe, network, rates, 1, world_size)
        step.compile(images, targets, drop_path)
        return step, read_dump(max(folder.rglob("*_validate_*.ir")))


def describe(recipe: Recipe, step: TrainStep, dump: GraphDump) -> list[str]:
    """What a step consists of, in lines for people; bytes are of one rank."""
    weights = sum(parameter.size for parameter in step.network_weights)
    trained = sum(parameter.size for parameter in step.weights)
    state = sum(parameter.nbytes for parameter in step.get_parameters())
    held = state + 4 * trained + dump.kept_for_backward
    return [
        f"{recipe.model.model}: {weights:,} parameters, {trained:,} of them trained; "
        f"{recipe.data.batch_size} images of {recipe.augmentation.image_resize} px a step, "
        f"{recipe.system.amp_level}, for {recipe.system.device_target}",
        f"operators a step: {dump.operators:,}; unfused they read and write "
        f"{dump.bytes / 1e9:.1f} GB",
        f"memory, at least: {held / 1e9:.2f} GB, of which weights and moments {state / 1e9:.2f}, "
        f"gradients {4 * trained / 1e9:.2f}, maps kept for the backward pass "
        f"{dump.kept_for_backward / 1e9:.2f}",
    ]
