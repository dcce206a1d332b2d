"""The scenes that a recipe names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...config import Recipe
from ...runtime.counted import counted
from ...runtime.errors import UserError
from .digit_scenes import write_digit_scenes
from .scenes import SceneFolder, ade20k_scenes, own_scenes


def training_scenes(recipe: Recipe) -> SceneFolder:
    """List the training split; digits are written first where the recipe asks for it.

    Raises:
        UserError: as :func:`own_scenes`; or ``num_classes`` is another number than theirs.
    """
    return _scenes(recipe, recipe.data.train_split)


def validation_scenes(
    recipe: Recipe, classes: Sequence[str] | None, num_classes: int
) -> SceneFolder:
    """List the validation split.

    Args:
        recipe: names it.
        classes: those of the network, which are to be the folder's; None where it has no names.
        num_classes: how many the network tells apart.

    Raises:
        UserError: as :func:`training_scenes`; or the classes are others.
    """
    scenes = _scenes(recipe, recipe.data.val_split)
    if classes is None or tuple(classes) == scenes.classes:
        _check_count(scenes, num_classes, "classes of the weights")
        return scenes
    pairs = enumerate(zip(classes, scenes.classes, strict=False))
    differing = next(
        (f"{i} {ours}, expected {theirs}" for i, (theirs, ours) in pairs if theirs != ours), None
    )
    raise UserError(
        f"{scenes.root}: found the class {differing}, as in the weights"
        if differing
        else f"{scenes.root}: found {counted(len(scenes.classes), 'class')}, expected the "
        f"{len(classes)} of the weights"
    )


def _scenes(recipe: Recipe, split: str) -> SceneFolder:
    data, reduce_zero_label = recipe.data, recipe.segmentation.reduce_zero_label
    if data.dataset == "digits" and data.dataset_download:
        write_digit_scenes(data.data_dir)
    root = Path(data.data_dir)
    if data.dataset == "ade20k":
        scenes = ade20k_scenes(root, split)
    else:
        scenes = own_scenes(root, split, reduce_zero_label=reduce_zero_label)
    _check_count(scenes, recipe.model.num_classes, "num_classes")
    return scenes


def _check_count(scenes: SceneFolder, count: int | None, what: str) -> None:
    found = len(scenes.classes)
    if count not in (None, found):
        raise UserError(
            f"{what}: found {count} with {counted(found, 'class')} in {scenes.root}, expected "
            f"{found}"
        )
