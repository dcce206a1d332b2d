"""Bundles of segmenters and detectors on their way into a validation."""

from __future__ import annotations

from typing import Any, TypeVar

from ..config import Recipe
from ..export.bundle import Load, PictureBundle
from ..export.description import read_description
from ..export.runtimes import chosen, told
from ..runtime.errors import UserError
from .validation import ValidationOptions

T = TypeVar("T", bound=PictureBundle)


def bundle_asked_for(load: Load[T], recipe: Recipe, options: ValidationOptions) -> T:
    """Give the bundle, in the runtime that is asked for.

    Raises:
        UserError: it cannot be read, or a size is asked for.
    """
    if options.image_size:
        raise UserError(
            f"image_size: found {options.image_size} with task {recipe.model.task}, expected null: "
            "each picture goes to the size of the nearest shape"
        )
    taken = chosen(read_description(options.bundle), options.runtime, recipe.system.device_target)
    return load(options.bundle, runtime=taken, key_file=options.dec_key_file or None)


def facts_of(bundle: PictureBundle, folder: str) -> dict[str, Any]:
    """What a result tells of a bundle, read from a folder."""
    graphs = list(bundle.graphs.values())
    return {
        "model": bundle.model,
        "bundle": folder,
        "files": {name: digest for graph in graphs for name, digest in graph.checksums.items()},
        "runtime": told(graphs[0].runtime),
        "precision": graphs[0].precision,
    }
