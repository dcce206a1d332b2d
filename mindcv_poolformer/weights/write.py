"""Writing weights: a .ckpt, a .safetensors file, or as Hugging Face or OpenMMLab has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from mindspore import Tensor
from safetensors import SafetensorError
from safetensors.numpy import save_file

from ..models import VARIANTS, MaskRCNN, RetinaNet, SemanticFPN
from ..models.classifier import NORM_POOL
from ..runtime.checkpoint_file import save_checkpoint
from ..runtime.errors import UserError
from ..runtime.files import replaced_file, replaced_folder
from . import huggingface, openmmlab
from .load import Network
from .model_weights import ModelWeights
from .names import HUGGINGFACE, OPENMMLAB
from .read import HEADER, Source, import_torch
from .recognise import recognise

Format = Literal["ckpt", "safetensors", "hf", "openmmlab"]
_MODEL_FILE = "model.safetensors"


def format_of(path: Path, wanted: Format | None = None) -> Format:
    """Tell a target's format from its suffix; a name without one is a Hugging Face folder.

    Args:
        path: of the target.
        wanted: the format it must be; a folder may then have any name, and a file for
            OpenMMLab may end in .safetensors.

    Raises:
        UserError: the suffix is of no format, or not of the one wanted.
    """
    formats: dict[str, Format] = {
        ".ckpt": "ckpt",
        ".safetensors": "safetensors",
        "": "hf",
        ".pth": "openmmlab",
    }
    form = wanted or formats.get(path.suffix)
    if form is None:
        raise UserError(
            f"{path}: found {path.suffix!r}, expected .ckpt, .safetensors, or none for a Hugging "
            "Face folder, or .pth for MMSegmentation or MMDetection"
        )
    suffixes = [".pth", ".safetensors"] if form == "openmmlab" else [f".{form}"]
    if form != "hf" and path.suffix not in suffixes:
        raise UserError(f"{path}: found {path.suffix!r}, expected {' or '.join(suffixes)}")
    return form


def check_target(path: Path, form: Format, overwrite: bool) -> None:
    """Refuse to write over what is not to be lost.

    Raises:
        UserError: ``path`` exists without ``overwrite``, or is not of the kind that would replace
            it: a file, or a Hugging Face folder with nothing else in it.
    """
    if not path.exists():
        return
    if not overwrite:
        raise UserError(f"{path}: found it to exist, expected a new name, or --overwrite")
    if form != "hf":
        replaceable = path.is_file()
    else:
        ours = {_MODEL_FILE, huggingface.PREPROCESSOR, huggingface.CONFIG}
        replaceable = path.is_dir() and {entry.name for entry in path.iterdir()} <= ours
    if not replaceable:
        raise UserError(f"{path}: found something else there, expected what {form} would replace")


def save_weights(network: Network, path: str | Path, form: Format | None = None) -> None:
    """Write a network with its classes and preprocessing, as train.py and classify read it.

    Args:
        network: of any variant, or a segmentation model or detector; its ``classes``, ``palette``
            and ``reduce_zero_label`` or ``category_ids`` and ``limits``, and ``preprocessing`` are
            written too.
        path: replaced if it exists; its suffix tells the format, see :func:`format_of`.
        form: the format, where the name of a Hugging Face folder has a dot.

    Raises:
        UserError: the network is no variant's, or as :func:`format_of`, :func:`check_target` and
            :func:`write_weights`.
    """
    path = Path(path)
    form = format_of(path, form)
    check_target(path, form, overwrite=True)
    metadata: dict[str, Any] = {
        "model": network.variant,
        "preprocessing": network.preprocessing,
    }
    if isinstance(network, SemanticFPN):
        metadata |= {"classes": network.classes, "palette": network.palette}
        metadata["reduce_zero_label"] = network.reduce_zero_label
    elif isinstance(network, RetinaNet | MaskRCNN):
        metadata |= {"classes": network.classes, "category_ids": network.category_ids}
        metadata["limits"] = network.limits
    else:
        names = "labels" if network.for_people else "classes"
        metadata |= {"head": network.head_order, names: network.classes}
    # a Cell that the network is part of has renamed the parameters themselves
    values = {n: p.asnumpy().astype(np.float32) for n, p in network.parameters_and_names()}
    write_weights(recognise(Source(path, values, metadata)), path, form)


def write_weights(weights: ModelWeights, path: Path, form: Format) -> None:
    """Write weights, and what is known about the model; ``path`` holds all of it or is as before.

    Raises:
        UserError: a Hugging Face folder is wanted of a model that transformers cannot express, a
            file for OpenMMLab of a classifier, or ``path`` cannot be written.
    """
    try:
        if form == "ckpt":
            tensors = {name: Tensor(value) for name, value in weights.values.items()}
            save_checkpoint(path, tensors, weights.metadata)
        elif form == "safetensors":
            with replaced_file(path) as temporary:
                save_file(weights.values, temporary, {HEADER: json.dumps(weights.metadata)})
        elif form == "openmmlab":
            _write_openmmlab(weights, path)
        else:
            _write_huggingface(weights, path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be written ({error}), expected a place to write") from None


def _write_openmmlab(weights: ModelWeights, path: Path) -> None:
    """As its test and training programs read it; floats and counters are all in it."""
    if not weights.is_dense:
        raise UserError(
            f"{path}: found weights of {weights.model}, a classifier, expected those of a "
            "segmentation model for MMSegmentation or of a detector for MMDetection; choose a name "
            "that ends in .ckpt or .safetensors"
        )
    naming = next(n for n in OPENMMLAB if weights.values.keys() >= {*n.layout.signs})
    values = openmmlab.with_counters(
        {naming.theirs(name): value for name, value in weights.values.items()}
    )
    with replaced_file(path) as temporary:
        if path.suffix == ".safetensors":
            header = {"format": "pt", HEADER: json.dumps(weights.metadata)}
            save_file(values, temporary, header)
            return
        torch = import_torch(path, "to write one")
        state = {name: torch.from_numpy(np.array(value)) for name, value in values.items()}
        meta = openmmlab.meta_of(weights.metadata)
        torch.save({"meta": meta, "state_dict": state}, temporary)


def _write_huggingface(weights: ModelWeights, path: Path) -> None:
    if weights.is_dense or VARIANTS[weights.model].family:
        raise UserError(
            f"{path}: found weights of a {weights.model}, expected those of a PoolFormer: "
            "transformers has no such model; choose a name that ends in .ckpt or .safetensors"
        )
    if weights.head != NORM_POOL:
        raise UserError(
            f"{path}: found weights for the head {weights.head}, expected {NORM_POOL}: "
            "transformers has no PoolFormer that pools before its last norm"
        )
    values = {HUGGINGFACE.theirs(name): value for name, value in weights.values.items()}
    config = huggingface.config(
        weights.model, weights.num_classes, weights.in_channels, weights.classes
    )
    preprocessor = huggingface.preprocessor_config(
        weights.model, weights.in_channels, weights.preprocessing
    )
    with replaced_folder(path) as folder:
        save_file(values, folder / _MODEL_FILE, {"format": "pt"})
        for name, content in (
            (huggingface.CONFIG, config),
            (huggingface.PREPROCESSOR, preprocessor),
        ):
            text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            (folder / name).write_text(text, encoding="utf-8")
