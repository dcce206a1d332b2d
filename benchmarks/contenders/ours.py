"""This project's PoolFormer, set up as its scripts set it up."""

from __future__ import annotations

import mindcv_poolformer  # noqa: F401  sets the CPU up, before MindSpore is imported

# isort: split
import argparse
from pathlib import Path

import mindcv
import numpy as np
from mindspore import Tensor, nn

from benchmarks.contenders.serve import (
    LEARNING_RATE,
    NUM_CLASSES,
    QUEUED,
    WEIGHT_DECAY,
    Call,
    Workload,
    images,
    serve,
    targets,
)
from mindcv_poolformer.config import Recipe, parse_recipe
from mindcv_poolformer.data import loader, splits
from mindcv_poolformer.data.pipeline import training_batches
from mindcv_poolformer.export.bundle import load_bundle
from mindcv_poolformer.models import PoolFormer, find_variant
from mindcv_poolformer.models.deploy import to_deploy
from mindcv_poolformer.runtime.device import set_up_device
from mindcv_poolformer.runtime.launch import World
from mindcv_poolformer.tasks import Classification
from mindcv_poolformer.training.step import Outcome, build_step
from mindcv_poolformer.weights import load_weights, read_weights

CONFIGS = Path(__file__).parents[2] / "configs"
STEPS = 100_000  # more than are ever taken


def evaluation(given: argparse.Namespace) -> Workload:
    """The network as validate.py runs it."""
    return _forward(load(given, recipe(given)).set_train(False))


def deploy(given: argparse.Namespace) -> Workload:
    """The deploy form of the network."""
    return _forward(to_deploy(load(given, recipe(given)).set_train(False)))


def mindir(given: argparse.Namespace) -> Workload:
    """A MINDIR from a bundle of export.py, which lies beside the weights."""
    recipe(given)
    bundle = load_bundle(given.weights / "bundle", runtime="mindspore")

    def prepare(batch: int, size: int) -> Call:
        pixels = images(batch, size)
        return lambda: bundle.network(pixels)

    return Workload(prepare)


def _forward(network: nn.Cell) -> Workload:
    def prepare(batch: int, size: int) -> Call:
        pixels = Tensor(images(batch, size))
        return lambda: network(pixels).asnumpy()

    return Workload(prepare)


def training(given: argparse.Namespace) -> Workload:
    """The training step of train.py, without drop path, as Hugging Face has it by default."""
    settings = recipe(given, weight_decay=WEIGHT_DECAY)
    network = load(given, settings).set_train()
    rates = np.full(STEPS, LEARNING_RATE, np.float32)
    with_loss = Classification.with_loss(settings)
    step = build_step(settings, network, with_loss, rates, epoch_steps=STEPS, world_size=1)

    def prepare(batch: int, size: int) -> Call:
        pixels, soft = Tensor(images(batch, size)), Tensor(targets(batch))
        return lambda: Outcome.read(step(pixels, soft)).loss

    return Workload(prepare)


def pipeline(given: argparse.Namespace) -> Workload:
    """The batches of the official recipe; the size is the recipe's."""

    def prepare(batch: int, size: int) -> Call:
        settings = recipe(
            given,
            batch_size=batch,
            image_resize=size,
            data_dir=given.photographs,
            epoch_size=STEPS,  # of a batch or two
        )
        folder = splits.training_images(settings.data, NUM_CLASSES)
        rate = find_variant(given.model).drop_path_rate
        rates = mindcv.create_model(given.model, drop_path_rate=rate).drop_path_rates
        in_pass = loader.steps_per_epoch(len(folder), batch, 1, settings.data.drop_remainder)
        steps = settings.schedule.epoch_size * in_pass
        stream = loader.batches(
            training_batches(settings, folder, NUM_CLASSES, rates, loader.Shard(), steps, 0)
        )

        def call() -> None:
            next(stream)

        return call

    return Workload(prepare, warm_up=QUEUED, settle=QUEUED)


def recipe(given: argparse.Namespace, **flags: object) -> Recipe:
    """The official recipe, on the CPU in fp32; sets the device up as it says."""
    flags |= {
        "config": CONFIGS / f"{given.model}_ascend.yaml",
        "device_target": "CPU",
        "distribute": "false",
        "amp_level": "O0",
        "loss_scale": 1,
        "loss_scale_type": "fixed",
        "num_parallel_workers": given.workers,
    }
    words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
    settings = parse_recipe(words, description="", default_config="")
    system = settings.system
    set_up_device(system.device_target, system.mode, system.jit_level, World())
    return settings


def load(given: argparse.Namespace, settings: Recipe) -> PoolFormer:
    network = mindcv.create_model(settings.model.model, num_classes=NUM_CLASSES)
    load_weights(network, read_weights(given.weights / "model.ckpt"))
    return network


if __name__ == "__main__":
    serve(
        {
            "deploy": deploy,
            "evaluation": evaluation,
            "training": training,
            "pipeline": pipeline,
            "mindir": mindir,
        }
    )
