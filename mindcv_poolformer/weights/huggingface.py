"""The JSON files of a Hugging Face folder, as transformers' PoolFormer reads and writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..models import VARIANTS, default_cfgs
from ..models.outputs import name_classes, placeholder
from ..runtime.counted import counted
from ..runtime.errors import UserError

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
# What every PoolFormer here is, in the words of transformers' PoolFormerConfig.
_ARCHITECTURE = {
    "model_type": "poolformer",
    "num_encoder_blocks": 4,
    "patch_sizes": [7, 3, 3, 3],
    "strides": [4, 2, 2, 2],
    "padding": [2, 1, 1, 1],
    "pool_size": 3,
    "mlp_ratio": 4.0,
    "hidden_act": "gelu",
    "use_layer_scale": True,
}
_RESAMPLE = {"bilinear": 2, "bicubic": 3}  # Pillow's numbers


def read_classes(folder: Path, num_classes: int) -> tuple[str, ...]:
    """Give the class names in a folder's config.json, without the placeholders LABEL_<number>.

    Raises:
        UserError: there is no readable config.json, or it tells of another network than ours, which
            the names and shapes of the weights would not show.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: found no readable file ({error}), expected Hugging Face's beside its weights"
        ) from None
    for key, expected in _ARCHITECTURE.items():
        found = config.get(key, expected)
        if found != expected:
            raise UserError(f"{path}: found {key} {found!r}, expected {expected!r}")
    if not num_classes:  # of a base model; it may tell labels all the same
        return ()
    labels = config.get("id2label") or {}
    numbers = {str(number) for number in range(num_classes)}
    if labels and set(labels) != numbers:
        raise UserError(
            f"{path}: found {counted(len(labels), 'label')}, expected one for each of "
            f"{counted(num_classes, 'class')}"
        )
    classes = [labels[str(number)] for number in range(len(labels))]
    while classes and classes[-1] == placeholder(len(classes) - 1):
        classes.pop()
    return tuple(classes)


def read_preprocessing(folder: Path) -> dict[str, Any] | None:
    """Give what a folder's preprocessor_config.json tells, as ``EvalTransform.to_dict`` tells it.

    What the file leaves out is as transformers has it by default: poolformer_s12's. Without the
    file there is nothing to give, None.

    Raises:
        UserError: the file is damaged, or its images are not resized to their shortest edge,
            cropped to that size, and normalised.
    """
    path = folder / PREPROCESSOR
    if not path.is_file():
        return None
    expected = preprocessor_config("poolformer_s12", 3, None)
    try:
        found = expected | json.loads(path.read_bytes())
        for key, value in expected.items():
            if key.startswith(("do_", "rescale_")) and found[key] != value:
                raise UserError(f"{path}: found {key} {found[key]!r}, expected {value!r}")
        size, crop = _edges(found["size"]), _edges(found["crop_size"])
        if len(size | crop) != 1:
            raise UserError(
                f"{path}: found size {found['size']} and crop_size {found['crop_size']}, expected "
                "one edge"
            )
        return {
            "image_size": size.pop(),
            "crop_pct": found["crop_pct"],
            "interpolation": {v: k for k, v in _RESAMPLE.items()}[found["resample"]],
            "mean": [_of_255(value) for value in found["image_mean"]],
            "std": [_of_255(value) for value in found["image_std"]],
            "pixel_range": [0, 255],
        }
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(
            f"{path}: found no preprocessing of a PoolFormer ({error!r}), expected it as "
            "transformers writes it"
        ) from None


def _of_255(value: float) -> float:
    """A share of the range of pixels in units of 0 to 255, as it was before it was rounded."""
    return round(255 * value, 5)


def _edges(size: Any) -> set[int]:
    """The lengths in a size, which older files tell as one number."""
    return {size} if isinstance(size, int) else set(size.values())


def config(
    model: str, num_classes: int, in_channels: int, classes: Sequence[str]
) -> dict[str, Any]:
    """Give the content of config.json; a class without a name gets the placeholder LABEL_<number>.

    Raises:
        ValueError: there are more names than classes.
    """
    variant = VARIANTS[model]
    labels = name_classes(classes, num_classes)
    return {
        **_ARCHITECTURE,
        "architectures": ["PoolFormerForImageClassification"],
        "depths": list(variant.depths),
        "hidden_sizes": list(variant.dims),
        "num_channels": in_channels,
        "layer_scale_init_value": variant.layer_scale_init,
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
    }


def preprocessor_config(
    model: str, in_channels: int, preprocessing: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Give the content of preprocessor_config.json.

    Args:
        model: whose published preprocessing is taken if none is given.
        in_channels: of the images.
        preprocessing: as ``EvalTransform.to_dict`` tells it, mean and std in units of 0 to 255.

    Raises:
        UserError: no preprocessing is given, and the published one is for other channels.
    """
    if preprocessing:
        edge = preprocessing["image_size"]
        mean, std = ([round(v / 255, 8) for v in preprocessing[key]] for key in ("mean", "std"))
    else:
        preprocessing = default_cfgs[model]
        channels, edge = preprocessing["input_size"][:2]
        mean, std = list(preprocessing["mean"]), list(preprocessing["std"])
        if in_channels != channels:
            raise UserError(
                f"preprocessing: found none for {counted(in_channels, 'input channel')}, expected "
                f"it in the checkpoint's metadata; the published one is for {channels}"
            )
    return {
        "image_processor_type": "PoolFormerImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": edge},
        "crop_pct": preprocessing["crop_pct"],
        "resample": _RESAMPLE[preprocessing["interpolation"]],
        "do_center_crop": True,
        "crop_size": {"height": edge, "width": edge},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": mean,
        "image_std": std,
    }
