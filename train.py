"""Train a PoolFormer: alone, or data-parallel under mpirun or msrun.

Without flags this trains the demo recipe: handwritten digits on the CPU.
"""

from __future__ import annotations

import mindcv_poolformer  # noqa: F401  sets the CPU up, before MindSpore is imported

# isort: split
import signal
from collections.abc import Callable
from pathlib import Path

import mindcv
import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from mindcv_poolformer.config import Recipe, parse_recipe
from mindcv_poolformer.data import loader, splits
from mindcv_poolformer.data.folder import ImageFolder
from mindcv_poolformer.data.pipeline import training_batches
from mindcv_poolformer.data.transforms import eval_transform
from mindcv_poolformer.evaluation import Evaluator
from mindcv_poolformer.models import find_variant
from mindcv_poolformer.models.poolformer import NORM_POOL
from mindcv_poolformer.runtime.collectives import assert_identical
from mindcv_poolformer.runtime.device import set_up_device
from mindcv_poolformer.runtime.errors import run, said_once
from mindcv_poolformer.runtime.launch import World, check_launcher, discover, joined
from mindcv_poolformer.training import resume
from mindcv_poolformer.training.checkpoint import RunCheckpoints, evaluated_weights
from mindcv_poolformer.training.progress import Progress
from mindcv_poolformer.training.records import Records, draw_curves, start_folder
from mindcv_poolformer.training.schedule import learning_rates, peak_learning_rate
from mindcv_poolformer.training.step import TrainStep, build_step
from mindcv_poolformer.weights import find_weights, start_from

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
    """Set a run up, go on from where it stands, train its epochs, report."""
    keeping, folder = recipe.checkpointing, Path(recipe.checkpointing.ckpt_save_dir)

    # Images
    images = splits.training_images(recipe.data, recipe.model.num_classes)
    num_classes = recipe.model.num_classes or len(images.classes)
    global_batch = recipe.data.batch_size * world.size
    epoch_steps = loader.steps_per_epoch(
        len(images), recipe.data.batch_size, world.size, recipe.data.drop_remainder
    )

    # Network, step, validation
    network = build_network(recipe, num_classes, world)
    images_per_update = global_batch * recipe.optimizer.gradient_accumulation_steps
    peak = peak_learning_rate(recipe.schedule, images_per_update)
    rates = learning_rates(recipe.schedule, peak, epoch_steps)
    step = build_step(recipe, network, rates, world.size)
    evaluator = None
    if keeping.val_while_train:
        val_images = splits.validation_images(recipe.data, images.classes)
        level, head = recipe.system.eval_amp_level, network.head_order
        evaluator = Evaluator(recipe, level, val_images, num_classes, head, world)

    # Resume
    identity = resume.run_identity(recipe, world.size, images.named_labels())
    checkpoint = resume.find(folder, keeping.resume)
    history = resume.go_on(checkpoint, identity, step) if checkpoint else None
    first_step = int(step.global_step)

    # Epochs
    batches = feed(recipe, images, num_classes, network.drop_path_rates, step, first_step, world)
    progress = Progress(epoch_steps, len(rates), global_batch, first_step, show=world.is_main)
    progress.say(
        f"{recipe.model.model}: {len(images)} training images of {len(images.classes)} classes, "
        f"{recipe.schedule.epoch_size} epochs of {epoch_steps} steps of {global_batch} images, "
        f"peak learning rate {peak:.3g}, run folder {folder}"
    )
    if first_step == len(rates):
        progress.say(f"{checkpoint}: the run is complete; --resume false starts it anew")
    elif checkpoint:
        progress.say(f"{checkpoint}: going on after epoch {progress.epoch}")
    records = checkpoints = None
    if world.is_main:
        start_folder(folder, recipe.to_yaml(), images.classes)
        records = Records(folder, first_step)
        metadata = {
            "model": recipe.model.model,
            "num_classes": num_classes,
            "in_channels": recipe.model.in_channels,
            "head": network.head_order,
            "classes": images.classes,
            "preprocessing": eval_transform(recipe.augmentation).to_dict(),
            "run": identity,
        }
        checkpoints = RunCheckpoints(folder, keeping, metadata, history)
    train_epochs(recipe, step, rates, batches, evaluator, progress, records, checkpoints)

    # Report
    if world.is_main:
        records.close()
        print(*checkpoints.summary(), f"curves: {draw_curves(folder)}", sep="\n")


def train_epochs(
    recipe: Recipe,
    step: TrainStep,
    rates: np.ndarray,
    next_loss: Callable[[], Tensor],
    evaluator: Evaluator | None,
    progress: Progress,
    records: Records | None,
    checkpoints: RunCheckpoints | None,
) -> None:
    """Train to the end of the schedule; records and checkpoints are the main rank's."""
    keeping, last_epoch = recipe.checkpointing, recipe.schedule.epoch_size
    losses: list[Tensor] = []
    while progress.step < len(rates):
        losses.append(next_loss())
        # MindSpore's compiler takes Ctrl-C over and then ends the process without a word.
        signal.signal(signal.SIGINT, signal.default_int_handler)
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
        if evaluator and (epoch % keeping.val_interval == 0 or epoch == last_epoch):
            result = evaluator.take(evaluated_weights(step)).evaluate()
        if records and result:
            records.write("val", progress.step, {"epoch": epoch, **result.scores})
        if checkpoints and (epoch % keeping.ckpt_save_interval == 0 or epoch == last_epoch):
            checkpoints.save(epoch, result.top1 if result else None, step)
        progress.end_epoch(f"; validation {result}" if result else "")
    progress.close()


def build_network(recipe: Recipe, num_classes: int, world: World) -> nn.Cell:
    """The network to train, with equal weights on every rank."""
    model, drop_path_rate = recipe.model, recipe.model.drop_path_rate
    variant = find_variant(model.model)
    if drop_path_rate is None:
        drop_path_rate = variant.drop_path_rate
    weights = find_weights(model) if model.pretrained or model.ckpt_path else None
    ms.set_seed(recipe.system.seed)
    network = mindcv.create_model(
        model.model,
        num_classes=num_classes,
        in_channels=model.in_channels,
        drop_rate=model.drop_rate,
        drop_path_rate=drop_path_rate,
        head=weights.head if weights else NORM_POOL,
    )
    if weights:
        said = start_from(network, weights, any_channels=model.pretrained)
        if world.is_main:
            print(said)
    assert_identical(network, world.size)
    ms.set_seed(recipe.system.seed + world.rank)  # dropout: other masks on every rank
    return network.set_train()


def feed(
    recipe: Recipe,
    images: ImageFolder,
    num_classes: int,
    drop_path_rates: tuple[float, ...],
    step: TrainStep,
    first_step: int,
    world: World,
) -> Callable[[], Tensor]:
    """A call that takes the run's next batch through the step and gives its loss."""
    shard = loader.Shard(world.rank, world.size)
    dataset = training_batches(recipe, images, num_classes, drop_path_rates, shard, first_step)
    if recipe.system.dataset_sink_mode and recipe.system.device_target == "Ascend":
        return ms.data_sink(step, dataset)
    stream = loader.batches(dataset)
    return lambda: step(*next(stream))


if __name__ == "__main__":
    run(main)
