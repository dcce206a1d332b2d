"""Train a PoolFormer: alone, or data-parallel under mpirun or msrun.

Without flags this trains the demo recipe: handwritten digits on the CPU.
"""

from __future__ import annotations

import mindcv_poolformer  # noqa: F401  sets the CPU up, before MindSpore is imported

# isort: split

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mindcv
import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from mindcv_poolformer.config import Recipe, parse_recipe
from mindcv_poolformer.data import loader, splits, transforms
from mindcv_poolformer.data.folder import ImageFolder
from mindcv_poolformer.evaluation import Evaluation, evaluate
from mindcv_poolformer.models import find_variant
from mindcv_poolformer.runtime.amp import mixed_precision
from mindcv_poolformer.runtime.collectives import assert_identical
from mindcv_poolformer.runtime.device import set_up_device
from mindcv_poolformer.runtime.errors import run, said_once
from mindcv_poolformer.runtime.launch import World, check_launcher, discover, joined
from mindcv_poolformer.training import resume
from mindcv_poolformer.training.checkpoint import RunCheckpoints, evaluated_weights, training_state
from mindcv_poolformer.training.progress import Progress
from mindcv_poolformer.training.records import Records, draw_curves, start_folder
from mindcv_poolformer.training.schedule import learning_rates
from mindcv_poolformer.training.step import TrainStep, build_step
from mindcv_poolformer.weights import TRAINING_PREFIX, fill, load_weights, read_checkpoint

DEMO = Path(__file__).parent / "configs" / "poolformer_s12_digits.yaml"


def main() -> None:
    with said_once():
        recipe = parse_recipe(None, description=__doc__, default_config=str(DEMO))
    world = discover()
    check_launcher(recipe.system.distribute, world)
    set_up_device(recipe.system.device_target, recipe.system.mode, recipe.system.jit_level, world)
    with joined(world, recipe.system.device_target):
        train(recipe, world)


def train(recipe: Recipe, world: World) -> None:
    """Set a run up, train its epochs, report."""
    keeping = recipe.checkpointing
    folder = Path(keeping.ckpt_save_dir)
    images = splits.training_images(recipe.data, recipe.model.num_classes)
    num_classes = recipe.model.num_classes or len(images.classes)
    epoch_steps = loader.steps_per_epoch(
        len(images), recipe.data.batch_size, world.size, recipe.data.drop_remainder
    )
    validate = build_validation(recipe, world, images, num_classes)
    network = build_network(recipe, world, num_classes)
    images_per_update = (
        recipe.data.batch_size * world.size * recipe.optimizer.gradient_accumulation_steps
    )
    peak_lr = recipe.schedule.peak_lr(images_per_update)
    rates = learning_rates(recipe.schedule, peak_lr, epoch_steps)
    step = build_step(recipe, network, rates, world.size)

    identity = resume.run_identity(recipe, world.size, images.named_labels())
    history = continue_run(resume.find(folder, keeping.resume), identity, network, step)
    first_step = int(step.global_step.asnumpy())
    next_loss = feed(recipe, world, images, num_classes, step, network.drop_path_rates, first_step)

    global_batch = recipe.data.batch_size * world.size
    progress = Progress(epoch_steps, len(rates), global_batch, first_step, show=world.is_main)
    progress.say(
        f"{recipe.model.model}: {len(images)} training images of {len(images.classes)} classes, "
        f"{len(rates) // epoch_steps} epochs of {epoch_steps} steps of {global_batch} images, "
        f"peak learning rate {peak_lr:.3g}, run folder {folder}"
    )
    checkpoints, records = None, None
    if world.is_main:
        start_folder(folder, recipe.to_yaml(), images.classes)
        records = Records(folder, first_step)
        metadata = {
            "model": recipe.model.model,
            "num_classes": num_classes,
            "in_channels": recipe.model.in_channels,
            "classes": images.classes,
            "preprocessing": transforms.eval_transform(recipe.augmentation).to_dict(),
            "run": identity,
        }
        checkpoints = RunCheckpoints(
            folder,
            keeping.ckpt_save_policy,
            keeping.keep_checkpoint_max,
            metadata,
            TRAINING_PREFIX,
            history,
        )
    train_epochs(recipe, step, rates, next_loss, validate, progress, records, checkpoints)
    if records:
        records.close()
        curves = draw_curves(folder)
        if checkpoints.best_top1 is not None:
            progress.say(
                f"best top-1 {checkpoints.best_top1:.2f} % after epoch {checkpoints.best_epoch}: "
                f"{checkpoints.best_path}"
            )
        progress.say(f"curves: {curves}")


def train_epochs(
    recipe: Recipe,
    step: TrainStep,
    rates: np.ndarray,
    next_loss: Callable[[], Tensor],
    validate: Callable[[TrainStep], Evaluation] | None,
    progress: Progress,
    records: Records | None,
    checkpoints: RunCheckpoints | None,
) -> None:
    """Train to the end of the schedule; records and checkpoints are the main rank's."""
    keeping, last_epoch = recipe.checkpointing, recipe.schedule.epoch_size
    losses: list[Tensor] = []
    while progress.step < len(rates):
        losses.append(next_loss())
        progress.advance()
        if not progress.at_epoch_end and progress.step % recipe.system.log_interval:
            continue
        row = progress.report([float(loss) for loss in losses], rates[progress.step - 1], step)
        losses.clear()
        if records:
            records.write("train", progress.step, row)
        if not progress.at_epoch_end:
            continue

        epoch, result = progress.epoch, None
        if validate and (epoch % keeping.val_interval == 0 or epoch == last_epoch):
            result = validate(step)
        if records and result:
            records.write("val", progress.step, {"epoch": epoch, **result.scores})
        if checkpoints and (epoch % keeping.ckpt_save_interval == 0 or epoch == last_epoch):
            checkpoints.save(epoch, result.top1 if result else None, step)
        progress.end_epoch(f"; validation {result}" if result else "")
    progress.close()


def build_network(recipe: Recipe, world: World, num_classes: int) -> nn.Cell:
    """The network to train, with equal weights on every rank."""
    model = recipe.model
    drop_path_rate = model.drop_path_rate
    if drop_path_rate is None:
        drop_path_rate = find_variant(model.model).drop_path_rate
    ms.set_seed(recipe.system.seed)
    network = mindcv.create_model(
        model.model,
        num_classes=num_classes,
        in_channels=model.in_channels,
        drop_rate=model.drop_rate,
        drop_path_rate=drop_path_rate,
    )
    if model.ckpt_path:
        load_weights(network, model.ckpt_path)
    assert_identical(network, world.size)
    ms.set_seed(recipe.system.seed + world.rank)  # dropout: other masks on every rank
    return network.set_train()


def build_validation(
    recipe: Recipe, world: World, images: ImageFolder, num_classes: int
) -> Callable[[TrainStep], Evaluation] | None:
    """A validation of the weights that a step has reached, at the recipe's precision."""
    if not recipe.checkpointing.val_while_train:
        return None
    system, data = recipe.system, recipe.data
    val_images = splits.validation_images(data, images.classes)
    network = mindcv.create_model(
        recipe.model.model, num_classes=num_classes, in_channels=recipe.model.in_channels
    )
    network.set_train(False)
    runner = mixed_precision(network, system.val_amp_level or system.amp_level)
    dataset = loader.evaluation_dataset(
        val_images,
        transforms.eval_transform(recipe.augmentation),
        batch_size=data.batch_size,
        shard=loader.Shard(world.rank, world.size),
        num_parallel_workers=system.num_parallel_workers,
        python_multiprocessing=system.python_multiprocessing,
    )

    def validate(step: TrainStep) -> Evaluation:
        weights = evaluated_weights(step)
        for parameter in network.get_parameters():
            parameter.set_data(weights[parameter.name].value())
        return evaluate(runner, loader.batches(dataset), world_size=world.size, bar=world.is_main)

    return validate


def continue_run(
    path: Path | None, identity: dict[str, Any], network: nn.Cell, step: TrainStep
) -> dict[str, Any] | None:
    """Set network and step to where the checkpoint of this run stands; give its history."""
    if path is None:
        return None
    entries, metadata = read_checkpoint(path)
    resume.check_same_run(metadata.get("run", {}), identity, path)
    state = {k: v for k, v in entries.items() if k.startswith(TRAINING_PREFIX)}
    weights = {k: v for k, v in entries.items() if k not in state}
    fill({p.name: p for p in network.get_parameters()}, weights, path)
    fill({TRAINING_PREFIX + k: v for k, v in training_state(step).items()}, state, path)
    return metadata["history"]


def feed(
    recipe: Recipe,
    world: World,
    images: ImageFolder,
    num_classes: int,
    step: TrainStep,
    drop_path_rates: tuple[float, ...],
    first_step: int,
) -> Callable[[], Tensor]:
    """A call that takes the run's next batch through the step and gives its loss."""
    system, data = recipe.system, recipe.data
    dataset = loader.training_dataset(
        images,
        transforms.train_transform(recipe.augmentation),
        transforms.batch_transform(recipe.augmentation, num_classes, recipe.loss.label_smoothing),
        batch_size=data.batch_size,
        shard=loader.Shard(world.rank, world.size),
        seed=system.seed,
        shuffle=data.shuffle,
        drop_remainder=data.drop_remainder,
        epochs=recipe.schedule.epoch_size,
        num_parallel_workers=system.num_parallel_workers,
        python_multiprocessing=system.python_multiprocessing,
        drop_path_rates=drop_path_rates,
        start_step=first_step,
    )
    if system.dataset_sink_mode and system.device_target == "Ascend":
        return ms.data_sink(step, dataset)
    stream = loader.batches(dataset)
    return lambda: step(*next(stream))


if __name__ == "__main__":
    run(main)
