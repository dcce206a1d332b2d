"""The pictures with objects that a recipe names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...config import Recipe
from ...runtime.counted import counted
from ...runtime.errors import UserError
from .coco import (
    CocoPictures,
    classes_of,
    evaluation_pictures,
    split_paths,
    training_pictures,
    want_outlines,
)
from .digit_objects import write_digit_objects


def pictures_to_train_on(recipe: Recipe, *, masks: bool) -> CocoPictures:
    """List the training split; digits are written first where the recipe asks for it.

    Args:
        recipe: names it.
        masks: give the objects' masks, too.

    Raises:
        UserError: as :func:`training_pictures`; or ``num_classes`` is another number than that of
            the file's categories.
    """
    annotations, images = _paths(
        recipe, recipe.data.train_split, recipe.detection.train_annotations
    )
    pictures = training_pictures(annotations, images, masks=masks)
    _check_count(pictures, recipe.model.num_classes, "num_classes")
    return pictures


def pictures_to_validate_on(
    recipe: Recipe, classes: Sequence[str] | None, num_classes: int, *, masks: bool
) -> CocoPictures:
    """List the validation split.

    Args:
        recipe: names it.
        classes: those of the network, which the file has to have; None where it has no names, and
            the file's categories are the network's classes.
        num_classes: how many the network tells apart.
        masks: it gives masks, so that each object has to have an outline.

    Raises:
        UserError: as :func:`evaluation_pictures` and :func:`want_outlines`; or there is another
            number of categories.
    """
    annotations, images = _paths(recipe, recipe.data.val_split, recipe.detection.val_annotations)
    pictures = evaluation_pictures(annotations, images, classes=classes)
    _check_count(pictures, num_classes, "classes of the weights")
    if masks:
        want_outlines(pictures, classes_of(pictures))  # what training leaves out counts here
    return pictures


def _paths(recipe: Recipe, split: str, annotations: str) -> tuple[Path, Path]:
    data = recipe.data
    if data.dataset == "digits" and data.dataset_download:
        write_digit_objects(data.data_dir)
    by_layout, images = split_paths(data.data_dir, split)
    return Path(annotations) if annotations else by_layout, images


def _check_count(pictures: CocoPictures, count: int | None, what: str) -> None:
    found = len(pictures.classes)
    if count not in (None, found):
        raise UserError(
            f"{what}: found {count} with {counted(found, 'category', 'categories')} in "
            f"{pictures.file.path}, expected {found}"
        )
