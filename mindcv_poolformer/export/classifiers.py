"""Classifiers on their way into a bundle: what is known of them, and images to prove it on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import mindcv
import numpy as np
from PIL import Image

from ..config import Recipe
from ..data.folder import class_folders, find_images, scan_folder
from ..data.photographs import PHOTOGRAPHS, photograph_crops
from ..data.preprocess import EvalTransform, open_image
from ..data.transforms import eval_transform
from ..models.variants import check_image_size
from ..runtime.errors import UserError
from ..weights import ModelWeights, load_weights
from .class_names import with_numbers
from .image_size import Size
from .trained import Trained

MOST_SAMPLES = 16
RECIPE_KEYS = {"image_size": "image_resize", "interpolation": "val_interpolation"}


def trained_classifier(recipe: Recipe, weights: ModelWeights, edge: int) -> Trained:
    """What there is to export of a recipe's classifier.

    Args:
        recipe: names the model, and tells how images are prepared.
        weights: of it.
        edge: of the images that the bundle takes by default.

    Raises:
        UserError: they have no classifier, or images were prepared otherwise than in the recipe.
    """
    name = recipe.model.model
    transform = eval_transform(recipe.augmentation)
    if weights.preprocessing:
        trained = EvalTransform.from_dict(weights.preprocessing)
        check_preprocessing(transform, trained, weights.path)
    num_classes = recipe.model.num_classes or weights.num_classes
    if not num_classes:
        raise UserError(f"{weights.path}: found no classifier, expected one")
    network = mindcv.create_model(
        name,
        num_classes=num_classes,
        in_channels=recipe.model.in_channels,
        head=weights.head,
    )
    load_weights(network, weights)
    classes = class_names(recipe, weights.classes, num_classes)
    transform = dataclasses.replace(transform, image_size=edge)
    return Trained(network, name, weights.path, transform, classes)


def check_edges(recipe: Recipe, sizes: Sequence[Size]) -> list[int]:
    """Give the edges of squares, as asked for.

    Raises:
        UserError: a size is no square, or one that the model cannot take.
    """
    name = recipe.model.model
    for height, width in sizes:
        if height != width:
            raise UserError(
                f"export_image_size: found {height}x{width} with model {name}, expected an edge: "
                "a classifier takes squares"
            )
    check_image_size(name, recipe.augmentation.image_resize)
    for edge, _ in sizes:
        check_image_size(name, edge, "export_image_size")
    return [edge for edge, _ in sizes]


def images_at(
    trained: Trained, edges: Sequence[int], images: Sequence[Image.Image]
) -> list[np.ndarray]:
    """The images as graphs of each edge take them, (N, C, edge, edge) float32."""
    assert isinstance(trained.transform, EvalTransform)
    transforms = [dataclasses.replace(trained.transform, image_size=edge) for edge in edges]
    return [np.stack([fitted(image) for image in images]) for fitted in transforms]


def check_preprocessing(ours: EvalTransform, trained: EvalTransform, path: Path) -> None:
    """Refuse a recipe that prepares images otherwise than the training's validation did."""
    for name in (field.name for field in fields(EvalTransform)):
        found, expected = getattr(ours, name), getattr(trained, name)
        if found != expected:
            key = RECIPE_KEYS.get(name, name)
            raise UserError(f"{key}: found {found} in the recipe, expected {expected} as in {path}")


def class_names(recipe: Recipe, names: Sequence[str], count: int) -> tuple[str, ...]:
    """Names of the outputs: the checkpoint's, or else the training folders', or else numbers."""
    folder = Path(recipe.data.data_dir) / recipe.data.train_split
    if not names and folder.is_dir():
        folders = class_folders(folder)
        names = folders if len(folders) == count else []
    return with_numbers(names, count)


def proof_images(recipe: Recipe, given: str) -> tuple[list[Image.Image], str]:
    """At most 16 images to prove the export on, and where they are from."""
    channels = recipe.model.in_channels
    data_dir = Path(recipe.data.data_dir)
    if given:
        paths, origin = find_images([given])[:MOST_SAMPLES], "sample_images"
    elif data_dir.is_dir():
        paths, origin = spread_over_classes(data_dir / recipe.data.val_split), "val_split"
    else:
        crops = photograph_crops(channels)
        origin = f"{len(crops)} crops of scikit-learn's {' and '.join(PHOTOGRAPHS)}"
        print(f"sample_images: found no folder {data_dir}, so the proof is on {origin}")
        return crops, origin
    return [open_image(path, channels) for path in paths], origin


def spread_over_classes(folder: Path) -> list[Path]:
    """At most 16 images of <folder>/<class>/*, the first ones of each class."""
    if not folder.is_dir():
        raise UserError(f"sample_images: found no folder {folder}, expected --sample_images")
    images = scan_folder(folder)
    turn = np.arange(len(images)) - np.searchsorted(images.labels, images.labels)
    return [Path(images.paths[i]) for i in np.lexsort((images.labels, turn))[:MOST_SAMPLES]]
