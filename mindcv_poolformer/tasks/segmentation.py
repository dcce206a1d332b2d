"""Semantic segmentation: the class of each pixel of a scene."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mindcv
import mindspore as ms
from mindspore import Tensor
from mindspore.dataset import Dataset

from ..config import Recipe
from ..data.corrupt import list_of
from ..data.order import Shard, steps_per_epoch
from ..data.segmentation import splits
from ..data.segmentation.fitting import IMG_SCALE
from ..data.segmentation.loader import training_scenes
from ..data.segmentation.palette import palette_of
from ..data.segmentation.scenes import IGNORED, SceneFolder
from ..data.segmentation.transforms import TrainTransform
from ..evaluation.segmentation import SegmentationEvaluator
from ..models import SEGMENTERS, VARIANTS, SemanticFPN
from ..models.dense import SegmentationLoss
from ..models.variants import find_segmenter
from ..runtime.amp import mixed_precision
from ..runtime.launch import World
from ..training.network import arrange_blocks, build_network
from ..training.step import Labelled, WithLoss
from . import validating_scenes
from .levels import check_levels


class Segmentation:
    """Scenes with a class for each pixel, and a network that tells these; see build_network.

    Args:
        recipe: what is asked for.
        world: the ranks.

    Raises:
        UserError: as :func:`splits.training_scenes` and :func:`build_network`.
    """

    metric = ("mIoU", "mIoU")
    validate = staticmethod(validating_scenes.validate)
    validate_bundle = staticmethod(validating_scenes.validate_bundle)

    def __init__(self, recipe: Recipe, world: World) -> None:
        self.recipe = recipe
        self.world = world
        self.images = self.training_data(recipe)
        self.num_classes = len(self.images.classes)
        self.notes = self.images.notes
        size = recipe.data.batch_size
        self.pass_steps = steps_per_epoch(len(self.images), size, world.size, drop_remainder=True)
        self.network = build_network(
            recipe,
            lambda weights: self.create_network(recipe, self.num_classes),
            self.images.classes,
            world,
        )
        self.network.synchronize_norms(world.size)

    @staticmethod
    def check(recipe: Recipe, levels: Mapping[str, str | None]) -> None:
        """Refuse a model that is not there or cannot be what is asked for, before the work.

        Args:
            recipe: what is asked for.
            levels: AMP levels at which it will run, by their keys.

        Raises:
            UserError: names the key.
        """
        find_segmenter(recipe.model.model)
        check_levels(recipe, VARIANTS[SEGMENTERS[recipe.model.model].backbone], levels)

    @staticmethod
    def training_data(recipe: Recipe) -> SceneFolder:
        """List the training scenes."""
        return splits.training_scenes(recipe)

    @staticmethod
    def create_network(recipe: Recipe, num_classes: int) -> SemanticFPN:
        """Give a segmentation model.

        Args:
            recipe: its model and segmentation sections count, and how blocks are to compute.
            num_classes: of the logits.
        """
        settings = recipe.segmentation
        network = mindcv.create_model(
            recipe.model.model,
            num_classes=num_classes,
            neck_channels=recipe.dense.neck_channels,
            head_channels=settings.head_channels,
            dropout=settings.head_dropout,
        )
        arrange_blocks(network, recipe)
        return network

    @staticmethod
    def with_loss(recipe: Recipe) -> WithLoss:
        """Give what puts the loss on a network at an AMP level: of logits and label maps."""
        loss = SegmentationLoss(IGNORED)
        return lambda network, level: Labelled(mixed_precision(network, level), loss)

    @staticmethod
    def step_inputs(recipe: Recipe, network: SemanticFPN) -> tuple[Tensor, ...]:
        """What a training step is compiled for: the columns of a batch, without values."""
        batch, settings = recipe.data.batch_size, recipe.segmentation
        images = Tensor(shape=(batch, 3, *settings.crop_size), dtype=ms.float32)
        labels = Tensor(shape=(batch, *settings.crop_size), dtype=ms.int32)
        if not settings.head_dropout:
            return images, labels
        return images, labels, Tensor(shape=(batch, settings.head_channels), dtype=ms.float32)

    def evaluator(self) -> SegmentationEvaluator:
        """Give what validates the network in training.

        Raises:
            UserError: as :func:`splits.validation_scenes`.
        """
        scenes = splits.validation_scenes(self.recipe, self.images.classes, self.num_classes)
        self.notes += scenes.notes
        level = self.recipe.system.eval_amp_level
        network = self.create_network(self.recipe, self.num_classes)
        return validating_scenes.evaluator_of(self.recipe, network, level, scenes, self.world)

    def batches(self, steps: int, first_step: int) -> Dataset:
        """Give the batches of a run of so many steps, from ``first_step`` on."""
        system, settings = self.recipe.system, self.recipe.segmentation
        rate, channels = settings.head_dropout, settings.head_channels
        return training_scenes(
            self.images,
            train_transform(self.recipe),
            batch_size=self.recipe.data.batch_size,
            shard=Shard(self.world.rank, self.world.size),
            seed=system.seed,
            steps=steps,
            num_parallel_workers=system.num_parallel_workers,
            python_multiprocessing=system.python_multiprocessing,
            dropout=(rate, channels) if rate else None,
            start_step=first_step,
            corrupt_log=list_of(self.recipe),
        )

    def metadata(self) -> dict[str, Any]:
        """Give what a checkpoint tells of the network."""
        return {
            "task": "segmentation",
            "model": self.recipe.model.model,
            "num_classes": self.num_classes,
            "in_channels": 3,
            "classes": self.images.classes,
            "palette": palette_of(self.images.classes).tolist(),
            "reduce_zero_label": self.images.reduce_zero_label,
            "preprocessing": validating_scenes.eval_transform(self.recipe).to_dict(),
        }


def train_transform(recipe: Recipe) -> TrainTransform:
    """What happens to each training scene."""
    settings, augmentation = recipe.segmentation, recipe.augmentation
    return TrainTransform(
        crop_size=settings.crop_size,
        img_scale=recipe.dense.img_scale or IMG_SCALE,
        ratio_range=settings.ratio_range,
        cat_max_ratio=settings.cat_max_ratio,
        flip=augmentation.hflip,
        photometric=settings.photometric_distortion,
        mean=augmentation.mean,
        std=augmentation.std,
    )
