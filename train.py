"""Train a PoolFormer or MetaFormer, to classify, segment or detect: alone, or by mpirun or msrun.

Without flags this trains the demo recipe: handwritten digits on the CPU.
"""

from __future__ import annotations

import mindcv_poolformer  # noqa: F401  sets the CPU up, before MindSpore is imported
import mindcv_poolformer.runtime.requires_mindspore  # noqa: F401

# isort: split
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from mindspore import Tensor
from mindspore.dataset import Dataset

from mindcv_poolformer.config import Recipe, parse_recipe
from mindcv_poolformer.data.corrupt import CorruptImages
from mindcv_poolformer.data.pipeline import feed
from mindcv_poolformer.runtime.counted import counted
from mindcv_poolformer.runtime.device import set_up_device
from mindcv_poolformer.runtime.errors import run, said_once
from mindcv_poolformer.runtime.interrupts import EXIT_CODE, StopRequest
from mindcv_poolformer.runtime.launch import World, check_launcher, discover, joined
from mindcv_poolformer.runtime.lock import check_shared, locked
from mindcv_poolformer.tasks import Evaluator, task_of
from mindcv_poolformer.tasks.compiling import compile_only
from mindcv_poolformer.training import resume
from mindcv_poolformer.training.checkpoint import evaluated_weights
from mindcv_poolformer.training.looks import must_look
from mindcv_poolformer.training.overflow import OverflowWatch
from mindcv_poolformer.training.progress import Progress
from mindcv_poolformer.training.run_folder import RunFolder
from mindcv_poolformer.training.schedule import learning_rates, peak_learning_rate
from mindcv_poolformer.training.step import Outcome, TrainStep, build_step

DEMO = Path(__file__).parent / "configs" / "poolformer_s12_digits.yaml"


@dataclass(frozen=True)
class Options:
    """train: what to do with the recipe

    Args:
        compile_only: compile the training step, tell of how many operators it consists and what
            they read, write and keep, and end. Needs no images where num_classes is given.
    """

    compile_only: bool = False


def main() -> None:
    with said_once():
        recipe, options = parse_recipe(
            None, description=__doc__, default_config=str(DEMO), options=Options
        )
    system = recipe.system
    levels = {"amp_level": system.amp_level, "val_amp_level": system.eval_amp_level}
    task_of(recipe).check(recipe, levels)
    world = World() if options.compile_only else discover()
    if not options.compile_only:
        check_launcher(system.distribute, world)
    arithmetic = {"deterministic": system.deterministic, "hf32": system.hf32}
    set_up_device(system.device_target, system.mode, system.jit_level, world, **arithmetic)
    if options.compile_only:
        compile_only(recipe)
        return
    with joined(world, system.device_target):
        done = train(recipe, world)
    if not done:
        sys.exit(EXIT_CODE)


def train(recipe: Recipe, world: World) -> bool:
    """Set a run up, go on from where it stands, train, report; tell whether it is done."""
    # Data, network
    task = task_of(recipe)(recipe, world)
    images = task.images
    global_batch = recipe.data.batch_size * world.size
    epoch_steps = recipe.schedule.epoch_steps or task.pass_steps

    # Step, validation
    images_per_update = global_batch * recipe.optimizer.gradient_accumulation_steps
    peak = peak_learning_rate(recipe.schedule, images_per_update)
    rates = learning_rates(recipe.schedule, peak, epoch_steps)
    step = build_step(recipe, task.network, task.with_loss(recipe), rates, epoch_steps, world.size)
    evaluator = task.evaluator() if recipe.checkpointing.val_while_train else None

    folder = Path(recipe.checkpointing.ckpt_save_dir)
    with ExitStack() as folder_is_ours:
        if world.is_main:
            folder_is_ours.enter_context(locked(folder))
        check_shared(folder, world.rank, world.size)

        # Resume
        identity = resume.run_identity(recipe, world.size, images.named_labels())
        found = resume.find(folder, recipe.checkpointing.resume)
        corrupt = CorruptImages(folder, images)
        if found:
            force = recipe.checkpointing.resume_force
            resume.go_on(found, identity, images.named_labels(), step, global_batch, force)
        if not (found and found.own):
            corrupt.start_anew(world)

        # Epochs
        progress = Progress(epoch_steps, rates, global_batch, int(step.global_step), world.is_main)
        batches = task.batches(len(rates), progress.step)
        progress.say(*task.notes)
        progress.say(
            f"{recipe.model.model}: {counted(len(images), 'training image')} of "
            f"{counted(len(images.classes), 'class')}, {counted(progress.epochs, 'epoch')} of "
            f"{counted(epoch_steps, 'step')} of {counted(global_batch, 'image')}, "
            f"peak learning rate {peak:.3g}, run folder {folder}"
        )
        if found:
            progress.take_up(found.position)
            progress.say(*found.lines(progress.step, progress.done))
        metadata = {**task.metadata(), "run": identity}
        run_folder = None
        if world.is_main:
            names = images.named_labels()
            run_folder = folder_is_ours.enter_context(
                RunFolder(folder, recipe, metadata, step, progress, found, names, task.metric)
            )
        if not progress.done:
            train_epochs(recipe, step, batches, evaluator, progress, run_folder, corrupt)
        progress.close()

        # Report
        if run_folder:
            print(*corrupt.summary(), *run_folder.finish(), sep="\n", flush=True)
    return progress.done


def train_epochs(
    recipe: Recipe,
    step: TrainStep,
    batches: Dataset,
    evaluator: Evaluator | None,
    progress: Progress,
    run_folder: RunFolder | None,
    corrupt: CorruptImages,
) -> None:
    """Train to the end of the schedule, or until a signal asks to stop: then save, and return."""
    system, interval = recipe.system, recipe.checkpointing.val_interval
    sink = system.dataset_sink_mode and system.device_target == "Ascend"
    take_step = feed(step, batches, sink=sink)
    overflows = OverflowWatch(step, system.max_bad_updates)
    unread: list[Tensor] = []
    asked_to_stop = stopping = False
    if system.mode == 0:
        progress.compiling(recipe.model.model)
    with StopRequest() as request:
        while not progress.done and not stopping:
            if request.received:
                step.ask_to_stop()
            with request.compiling():
                unread.append(take_step())
            progress.advance()
            if not (asked_to_stop or must_look(recipe, step, progress, request)):
                continue
            outcomes = list(map(Outcome.read, unread))
            unread.clear()
            progress.take(outcomes)
            overflows.check(outcomes)
            asked_to_stop = outcomes[-1].asked_to_stop

            if progress.at_epoch_end or progress.step % system.log_interval == 0:
                row = progress.report(step)
                corrupt.check()
                if run_folder:
                    run_folder.record("train", row)
            if not step.between_updates(progress.step):
                continue

            stopping, result = asked_to_stop, None
            due = progress.at_epoch_end and (progress.epoch % interval == 0 or progress.done)
            if evaluator and due:
                result = evaluator.take(evaluated_weights(step)).evaluate()
            if run_folder and result:
                run_folder.record("val", {"epoch": progress.epoch, **result.scores})
            if run_folder:
                run_folder.save(result.score if result else None, stopping)
            if progress.at_epoch_end:
                progress.end_epoch(f"; validation {result}" if result else "")


if __name__ == "__main__":
    run(main)
