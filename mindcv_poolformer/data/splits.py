"""The images that a recipe names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..config import DataConfig
from ..runtime.counted import counted
from ..runtime.errors import UserError
from .digits import write_digits
from .folder import ImageFolder, scan_folder


def training_images(data: DataConfig, num_classes: int | None) -> ImageFolder:
    """List the training split; the digits are written first where the recipe asks for it.

    Raises:
        UserError: as :func:`scan_folder`; or there are more classes than ``num_classes``, or one
            alone without it.
    """
    _prepare(data)
    images = scan_folder(Path(data.data_dir) / data.train_split)
    if len(images.classes) == 1 and num_classes in (None, 1):
        raise UserError(
            f"image folder {images.root}: found 1 class, {images.classes[0]}, expected two or more "
            "to tell apart, or num_classes of a classifier that has them"
        )
    if num_classes is not None and len(images.classes) > num_classes:
        raise UserError(
            f"num_classes: found {num_classes} with {counted(len(images.classes), 'class')} in "
            f"{images.root}, expected at least as many"
        )
    return images


def validation_images(data: DataConfig, classes: Sequence[str] | None) -> ImageFolder:
    """List the validation split, with labels that index ``classes``, those of the training.

    Without ``classes`` they are those of the training split, or where there is none the folder's
    own.

    Raises:
        UserError: as :func:`scan_folder`.
    """
    _prepare(data)
    train = Path(data.data_dir) / data.train_split
    if classes is None and train.is_dir():
        classes = scan_folder(train).classes
    return scan_folder(Path(data.data_dir) / data.val_split, classes)


def _prepare(data: DataConfig) -> None:
    if data.dataset == "digits" and data.dataset_download:
        write_digits(data.data_dir)
