"""``train.py --compile_only``: a recipe's step, compiled and counted without being run."""

from __future__ import annotations

import time

from ..config import Recipe
from ..training.compiling import compile_step, describe
from . import task_of


def compile_only(recipe: Recipe) -> None:
    """Compile the step that a recipe asks for, and print what it consists of.

    Raises:
        UserError: the recipe asks for PyNative mode, or its images are needed and not there.
    """
    task = task_of(recipe)
    classes = recipe.model.num_classes or len(task.training_data(recipe).classes)
    network = task.create_network(recipe, classes)
    inputs = task.step_inputs(recipe, network)
    started = time.perf_counter()
    step, dump = compile_step(recipe, network, task.with_loss(recipe), inputs)
    seconds = time.perf_counter() - started
    facts = describe(recipe, step, dump, inputs[0].shape)
    print(*facts, f"compiled in {seconds:.0f} s", sep="\n")
