"""Object detection: boxes of the objects on a picture, and the class of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mindcv
import mindspore as ms
from mindspore import Tensor, nn
from mindspore.dataset import Dataset

from ..config import DetectionConfig, Recipe
from ..data.corrupt import list_of
from ..data.detection.coco import CocoPictures
from ..data.detection.fitting import IMG_SCALE
from ..data.detection.loader import check_canvas, training_batches
from ..data.detection.order import grouped_steps, wider_than_high
from ..data.detection.splits import pictures_to_train_on, pictures_to_validate_on
from ..data.detection.transforms import TrainTransform
from ..data.fitting import DIVISOR
from ..data.order import Shard
from ..evaluation.detection import DetectionEvaluator
from ..models import DETECTORS, VARIANTS, MaskRCNN, RetinaNet
from ..models.dense import MaskRCNNLoss, RetinaNetLoss
from ..models.variants import find_detector
from ..runtime.amp import mixed_precision
from ..runtime.counted import counted
from ..runtime.errors import UserError
from ..runtime.launch import World
from ..training.network import arrange_blocks, build_network
from ..training.step import WithLoss
from . import validating_pictures
from .levels import check_levels

Detector = RetinaNet | MaskRCNN
# Keys of the recipe that the other kind of detector does not read.
_OF_RETINANET = ("stacked_convs",)
_OF_MASK_RCNN = ("rpn_max_per_img", "rpn_sampler_num", "rcnn_sampler_num")


class Detected(nn.Cell):
    """A RetinaNet with its loss.

    Args:
        network: images (N, C, H, W) to logits and box differences on five levels.
        num_classes: that it tells apart.
    """

    def __init__(self, network: nn.Cell, num_classes: int) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.loss = RetinaNetLoss(num_classes)

    def construct(self, images: Tensor, boxes: Tensor, labels: Tensor, sizes: Tensor) -> Tensor:
        """Give the loss of a batch, a scalar: of classes and of boxes, on all levels.

        Args:
            images: (N, C, H, W) float32.
            boxes: (N, G, 4), the true ones in pixels, filled up to G.
            labels: (N, G), negative where ``boxes`` is but filling.
            sizes: (N, 2), height and width of each picture without padding.
        """
        logits, deltas = self.network(images)
        of_classes, of_boxes = self.loss(logits, deltas, boxes, labels, _padded(sizes))
        return of_classes.sum() + of_boxes.sum()


class DetectedTwice(nn.Cell):
    """A Mask R-CNN with its loss.

    Args:
        network: that is trained.
        anchors: sampled of an image for the first pass.
        proposals: sampled of an image for the second pass.
    """

    def __init__(self, network: MaskRCNN, anchors: int, proposals: int) -> None:
        super().__init__(auto_prefix=False)
        self.loss = MaskRCNNLoss(network, anchors, proposals)

    def construct(
        self,
        images: Tensor,
        boxes: Tensor,
        labels: Tensor,
        sizes: Tensor,
        masks: Tensor,
        anchor_draws: Tensor,
        proposal_draws: Tensor,
    ) -> Tensor:
        """Give the loss of a batch, a scalar: of both passes, in all its parts.

        Args:
            images: (N, C, H, W) float32.
            boxes: (N, G, 4), the true ones in pixels, filled up to G.
            labels: (N, G), negative where ``boxes`` is but filling.
            sizes: (N, 2), height and width of each picture without padding.
            masks: (N, G, H, W), the objects' pixels, 0 or 1.
            anchor_draws: as :class:`MaskRCNNLoss` takes them, and so are ``proposal_draws``.
            proposal_draws: see there.
        """
        padded = _padded(sizes)
        objectness, first_boxes, of_classes, of_boxes, of_masks = self.loss(
            images, boxes, labels, masks, sizes, padded, anchor_draws, proposal_draws
        )
        return objectness.sum() + first_boxes.sum() + of_classes + of_boxes + of_masks


def _padded(sizes: Tensor) -> Tensor:
    """Height and width that pictures of these are padded to by themselves."""
    return (sizes + (DIVISOR - 1)) // DIVISOR * DIVISOR


class Detection:
    """Pictures with objects, and a network that finds these; see build_network.

    Args:
        recipe: what is asked for.
        world: the ranks.

    Raises:
        UserError: as :func:`check_canvas`, :func:`pictures_to_train_on` and
            :func:`build_network`; or a batch of all ranks is larger than the training set.
    """

    metric = ("box_AP", "box AP")
    validate = staticmethod(validating_pictures.validate)
    validate_bundle = staticmethod(validating_pictures.validate_bundle)

    def __init__(self, recipe: Recipe, world: World) -> None:
        self.recipe = recipe
        self.world = world
        check_canvas(recipe.detection.canvas, recipe.dense.img_scale or IMG_SCALE)
        self.images = self.training_data(recipe)
        self.num_classes = len(self.images.classes)
        self.notes = self.images.notes
        batch_size = recipe.data.batch_size
        if len(self.images) < batch_size * world.size:
            raise UserError(
                f"training set has {counted(len(self.images), 'picture')}, expected at least "
                f"{batch_size * world.size}: batch_size {batch_size} on {world.size} rank(s)"
            )
        groups = wider_than_high(self.images.sizes)
        self.pass_steps = grouped_steps(groups, batch_size * world.size)
        self.network = build_network(
            recipe,
            lambda weights: self.create_network(recipe, self.num_classes),
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
        name = recipe.model.model
        detector = find_detector(name)
        check_levels(recipe, VARIANTS[detector.backbone], levels)
        for key, level in levels.items():
            if detector.masks and level == "auto":
                raise UserError(
                    f"{key}: found auto with model {name}, expected O0, O2 or O3: MindSpore's auto "
                    "casts what is called as a whole, and a Mask R-CNN is called in parts"
                )
        for key in _OF_RETINANET if detector.masks else _OF_MASK_RCNN:
            value = getattr(recipe.detection, key)
            if value != getattr(DetectionConfig, key):
                kind = "RetinaNet" if detector.masks else "Mask R-CNN"
                raise UserError(
                    f"{key}: found {value} with model {name}, expected a {kind} with it"
                )

    @staticmethod
    def training_data(recipe: Recipe) -> CocoPictures:
        """List the training pictures."""
        return pictures_to_train_on(recipe, masks=DETECTORS[recipe.model.model].masks)

    @staticmethod
    def create_network(recipe: Recipe, num_classes: int) -> Detector:
        """Give a detector.

        Args:
            recipe: its model, dense and detection sections count, and how blocks are to compute.
            num_classes: that it tells apart.
        """
        model = recipe.model.model
        network = mindcv.create_model(
            model,
            num_classes=num_classes,
            channels=recipe.dense.neck_channels,
            **({} if DETECTORS[model].masks else {"stacked_convs": recipe.detection.stacked_convs}),
            **validating_pictures.limits(recipe),
        )
        arrange_blocks(network, recipe)
        return network

    @staticmethod
    def with_loss(recipe: Recipe) -> WithLoss:
        """Give what puts the loss on a network at an AMP level."""

        def put(network: Detector, level: str) -> nn.Cell:
            runner = mixed_precision(network, level)
            if isinstance(network, RetinaNet):
                return Detected(runner, network.num_classes)
            # Its parts are called one by one, and each casts what it is given.
            settings = recipe.detection
            return DetectedTwice(network, settings.rpn_sampler_num, settings.rcnn_sampler_num)

        return put

    @staticmethod
    def step_inputs(recipe: Recipe, network: Detector) -> tuple[Tensor, ...]:
        """What a training step is compiled for: the columns of a batch, without values."""
        batch, canvas = recipe.data.batch_size, recipe.detection.canvas
        objects = recipe.detection.max_objects or 100
        floats = [(batch, 3, *canvas), (batch, objects, 4)]
        images, boxes = (Tensor(shape=shape, dtype=ms.float32) for shape in floats)
        labels = Tensor(shape=(batch, objects), dtype=ms.int32)
        sizes = Tensor(shape=(batch, 2), dtype=ms.int32)
        if isinstance(network, RetinaNet):
            return images, boxes, labels, sizes
        masks = Tensor(shape=(batch, objects, *canvas), dtype=ms.uint8)
        drawn = _sampling(network, canvas, objects)
        draws = [Tensor(shape=(batch, count), dtype=ms.float32) for count in drawn]
        return images, boxes, labels, sizes, masks, *draws

    def evaluator(self) -> DetectionEvaluator:
        """Give what validates the network in training.

        Raises:
            UserError: as :func:`pictures_to_validate_on`.
        """
        masks = DETECTORS[self.recipe.model.model].masks
        pictures = pictures_to_validate_on(
            self.recipe, self.images.classes, self.num_classes, masks=masks
        )
        self.notes += pictures.notes
        level = self.recipe.system.eval_amp_level
        network = self.create_network(self.recipe, self.num_classes)
        return validating_pictures.evaluator_of(self.recipe, network, level, pictures, self.world)

    def batches(self, steps: int, first_step: int) -> Dataset:
        """Give the batches of a run of so many steps, from ``first_step`` on."""
        system, settings = self.recipe.system, self.recipe.detection
        objects = settings.max_objects or max(1, self.images.most_objects)
        return training_batches(
            self.images,
            train_transform(self.recipe),
            batch_size=self.recipe.data.batch_size,
            shard=Shard(self.world.rank, self.world.size),
            seed=system.seed,
            steps=steps,
            num_parallel_workers=system.num_parallel_workers,
            python_multiprocessing=system.python_multiprocessing,
            canvas=settings.canvas,
            max_objects=objects,
            sampling=_sampling(self.network, settings.canvas, objects),
            start_step=first_step,
            corrupt_log=list_of(self.recipe),
        )

    def metadata(self) -> dict[str, Any]:
        """Give what a checkpoint tells of the network."""
        return {
            "task": "detection",
            "model": self.recipe.model.model,
            "num_classes": self.num_classes,
            "in_channels": 3,
            "classes": self.images.classes,
            "category_ids": self.images.category_ids.tolist(),
            "limits": validating_pictures.limits(self.recipe),
            "preprocessing": validating_pictures.eval_transform(self.recipe).to_dict(),
        }


def _sampling(network: Detector, canvas: tuple[int, int], objects: int) -> tuple[int, ...]:
    """How many draws a picture on a canvas, with room for so many objects, is sampled by."""
    if isinstance(network, RetinaNet):
        return ()
    return network.anchors_on(*canvas), objects + network.proposals


def train_transform(recipe: Recipe) -> TrainTransform:
    """What happens to each training picture."""
    augmentation = recipe.augmentation
    return TrainTransform(
        recipe.dense.img_scale or IMG_SCALE,
        augmentation.hflip,
        augmentation.mean,
        augmentation.std,
    )
