"""MindCV's own PoolFormer, loss, optimizer and loader, as pip installs them, in graph mode."""

from __future__ import annotations

import argparse
import sys

import mindcv
import mindspore as ms
from mindcv.data import create_dataset, create_loader, create_transforms
from mindcv.loss import create_loss
from mindcv.optim import create_optimizer
from mindcv.utils import create_trainer
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


def inference(given: argparse.Namespace) -> Workload:
    """Forward in evaluation mode."""
    network = load(given).set_train(False)

    def prepare(batch: int, size: int) -> Call:
        pixels = Tensor(images(batch, size))
        return lambda: network(pixels).asnumpy()

    return Workload(prepare, warm_up=1)


def training(given: argparse.Namespace) -> Workload:
    """Forward, loss, backward and AdamW: the step of MindCV's trainer."""
    network = load(given)
    optimizer = create_optimizer(
        network.trainable_params(), opt="adamw", lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY
    )
    trainer = create_trainer(
        network, create_loss("CE"), optimizer, None, "O0", None, loss_scale_type="fixed"
    )
    step = trainer.train_network.set_train()

    def prepare(batch: int, size: int) -> Call:
        pixels, soft = Tensor(images(batch, size)), Tensor(targets(batch))
        return lambda: float(step(pixels, soft))

    return Workload(prepare, warm_up=1)


def pipeline(given: argparse.Namespace) -> Workload:
    """The batches of MindCV's recipe for poolformer_s12.

    The images are repeated before the augmentation, so that no epoch of a small folder ends in
    between, as none does within ImageNet.
    """

    def prepare(batch: int, size: int) -> Call:
        dataset = create_dataset(
            "imagenet", str(given.photographs), "train", num_parallel_workers=given.workers
        )
        transform = create_transforms(
            "imagenet",
            image_resize=size,
            is_training=True,
            scale=(0.08, 1.0),
            ratio=(0.75, 1.333),
            hflip=0.5,
            interpolation="bilinear",
            auto_augment="randaug-m9-mstd0.5-inc1",
            re_prob=0.25,
        )
        batches = create_loader(
            dataset.repeat(1000),
            batch,
            drop_remainder=True,
            is_training=True,
            mixup=0.8,
            cutmix=1.0,
            cutmix_prob=1.0,
            num_classes=NUM_CLASSES,
            transform=transform,
            num_parallel_workers=given.workers,
        )
        stream = batches.create_tuple_iterator(num_epochs=1)

        def call() -> None:
            next(stream)

        return call

    return Workload(prepare, warm_up=QUEUED, settle=QUEUED)


def load(given: argparse.Namespace) -> nn.Cell:
    ms.set_context(mode=ms.GRAPH_MODE)
    network = mindcv.create_model(given.model, num_classes=NUM_CLASSES)
    missing, _ = ms.load_param_into_net(
        network, ms.load_checkpoint(str(given.weights / "model.ckpt"))
    )
    if missing:
        raise LookupError(f"{given.weights}: found no {missing}, expected all parameters")
    return network


if __name__ == "__main__":
    if "mindcv_poolformer" in sys.modules:
        raise ImportError("mindcv_poolformer: found it imported, expected MindCV alone")
    serve({"inference": inference, "training": training, "pipeline": pipeline})
