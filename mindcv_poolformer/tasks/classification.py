"""Classification: the class of an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mindcv
import mindspore as ms
from mindspore import Tensor
from mindspore.dataset import Dataset

from ..config import ModelConfig, Recipe
from ..data import loader, splits
from ..data.folder import ImageFolder
from ..data.pipeline import training_batches
from ..data.transforms import eval_transform
from ..evaluation.classification import Evaluator
from ..models import StagedClassifier, find_variant
from ..models.outputs import soft_cross_entropy
from ..models.variants import FAMILIES, check_image_size
from ..runtime.amp import mixed_precision
from ..runtime.errors import UserError
from ..runtime.launch import World
from ..training.checkpoint import TOP1
from ..training.network import arrange_blocks, build_network
from ..training.step import Labelled, WithLoss
from . import validating_images
from .levels import check_levels


class Classification:
    """Images of classes, and a network that tells these; see build_network.

    Args:
        recipe: what is asked for.
        world: the ranks.

    Raises:
        UserError: as :func:`splits.training_images` and :func:`build_network`.
    """

    metric = TOP1
    validate = staticmethod(validating_images.validate)
    validate_bundle = staticmethod(validating_images.validate_bundle)

    def __init__(self, recipe: Recipe, world: World) -> None:
        self.recipe = recipe
        self.world = world
        self.images = self.training_data(recipe)
        self.num_classes = recipe.model.num_classes or len(self.images.classes)
        self.notes = self.images.notes
        size, drop_remainder = recipe.data.batch_size, recipe.data.drop_remainder
        self.pass_steps = loader.steps_per_epoch(len(self.images), size, world.size, drop_remainder)
        self.network = build_network(
            recipe,
            lambda weights: self.create_network(
                recipe, self.num_classes, weights.head if weights else None
            ),
            self.images.classes,
            world,
        )

    @staticmethod
    def check(recipe: Recipe, levels: Mapping[str, str | None]) -> None:
        """Refuse a model that is not there or cannot be what is asked for, before the work.

        Args:
            recipe: what is asked for.
            levels: AMP levels at which it will run, by their keys.

        Raises:
            UserError: names the key.
        """
        model = recipe.model
        check_image_size(model.model, recipe.augmentation.image_resize)
        variant = find_variant(model.model)
        check_levels(recipe, variant, levels)
        family = FAMILIES[variant.family] if variant.family else None
        if model.head_drop_rate and not (family and family.mlp_head):
            raise UserError(
                f"head_drop_rate: found {model.head_drop_rate} with model {model.model}, expected "
                "null or 0: it has no MLP head"
            )

    @staticmethod
    def training_data(recipe: Recipe) -> ImageFolder:
        """List the training images."""
        return splits.training_images(recipe.data, recipe.model.num_classes)

    @staticmethod
    def create_network(
        recipe: Recipe, num_classes: int, head: str | None = None
    ) -> StagedClassifier:
        """Give the network to train, with weights as drawn.

        Args:
            recipe: its model section counts, and how blocks and attention are to compute.
            num_classes: size of the classifier.
            head: order of norm and pooling, None for the family's own.
        """
        model = recipe.model
        network = mindcv.create_model(
            model.model,
            num_classes=num_classes,
            in_channels=model.in_channels,
            **_drop_rates(model),
            **({"head": head} if head else {}),
        )
        arrange_blocks(network, recipe)
        return network

    @staticmethod
    def with_loss(recipe: Recipe) -> WithLoss:
        """Give what puts the loss on a network at an AMP level: of logits and soft targets."""
        return lambda network, level: Labelled(mixed_precision(network, level), soft_cross_entropy)

    @staticmethod
    def step_inputs(recipe: Recipe, network: StagedClassifier) -> tuple[Tensor, ...]:
        """What a training step is compiled for: the columns of a batch, without values."""
        batch, edge = recipe.data.batch_size, recipe.augmentation.image_resize
        shapes: list[tuple[int, ...]] = [
            (batch, recipe.model.in_channels, edge, edge),
            (batch, network.num_classes),
        ]
        if any(network.drop_path_rates):
            shapes.append((len(network.drop_path_rates), 2, batch))
        return tuple(Tensor(shape=shape, dtype=ms.float32) for shape in shapes)

    def evaluator(self) -> Evaluator:
        """Give what validates the network in training.

        Raises:
            UserError: as :func:`splits.validation_images`.
        """
        recipe = self.recipe
        val_images = splits.validation_images(recipe.data, self.images.classes)
        self.notes += val_images.notes
        level, head = recipe.system.eval_amp_level, self.network.head_order
        return Evaluator(recipe, level, val_images, self.num_classes, head, self.world)

    def batches(self, steps: int, first_step: int) -> Dataset:
        """Give the batches of a run of so many steps, from ``first_step`` on."""
        shard = loader.Shard(self.world.rank, self.world.size)
        rates = self.network.drop_path_rates
        return training_batches(
            self.recipe, self.images, self.num_classes, rates, shard, steps, first_step
        )

    def metadata(self) -> dict[str, Any]:
        """Give what a checkpoint tells of the network."""
        model = self.recipe.model
        return {
            "model": model.model,
            "num_classes": self.num_classes,
            "in_channels": model.in_channels,
            "head": self.network.head_order,
            "classes": self.images.classes,
            "preprocessing": eval_transform(self.recipe.augmentation).to_dict(),
        }


def _drop_rates(model: ModelConfig) -> dict[str, float]:
    """Give the rates to create the network with: the recipe's, or where null the variant's own."""
    variant = find_variant(model.model)
    rates = {"drop_rate": model.drop_rate}
    for key in ("drop_path_rate", "head_drop_rate"):
        rate = getattr(model, key)
        rates[key] = getattr(variant, key) if rate is None else rate
    if not rates["head_drop_rate"]:
        del rates["head_drop_rate"]  # only a network with an MLP head knows it
    return rates
