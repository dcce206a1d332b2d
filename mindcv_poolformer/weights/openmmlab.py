"""What OpenMMLab's checkpoints hold beside weights: classes, their colours, and steps counted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .read import HEADER, Source

Palette = tuple[tuple[int, int, int], ...]
COUNTER = "num_batches_tracked"  # of each of PyTorch's batch norms


def opened(source: Source) -> Source:
    """Give a checkpoint without counters and averages; ``meta`` may tell metadata of ours.

    Averages are those of MMCV's EMAHook, named ``ema_backbone_norm0_weight`` and so on; its own
    programs test what has the plain names, with which it swaps them at the end of an epoch.
    """
    averages = {f"ema_{name.replace('.', '_')}" for name in source.values} & source.values.keys()

    def counts(name: str) -> bool:
        stem, _, leaf = name.rpartition(".")
        return leaf == COUNTER and f"{stem}.running_mean" in source.values

    return replace(
        source,
        values={n: v for n, v in source.values.items() if not (counts(n) or n in averages)},
        metadata=source.metadata or _ours_in(source.meta),
        left=(*(name for name in source.left if name != "meta"), *(["ema_*"] if averages else [])),
    )


def with_counters(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Give parameters by PyTorch's names with a counter of 0 behind each running variance."""
    counted = {}
    for name, value in values.items():
        counted[name] = value
        stem, _, leaf = name.rpartition(".")
        if leaf == "running_var":
            counted[f"{stem}.{COUNTER}"] = np.array(0, np.int64)
    return counted


def meta_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Give a checkpoint's ``meta``: in OpenMMLab's words, and all of ours as JSON."""
    meta: dict[str, Any] = {HEADER: json.dumps(metadata)}
    if "classes" in metadata:
        meta["CLASSES"] = tuple(metadata["classes"])
    if "palette" in metadata:
        meta["PALETTE"] = metadata["palette"]
    return meta


def _ours_in(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata that :func:`meta_of` put into a ``meta``; others' have none."""
    try:
        metadata = json.loads(meta.get(HEADER, "{}"))
    except (TypeError, ValueError):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def classes_in(meta: Mapping[str, Any]) -> tuple[str, ...]:
    """Give the names of the classes, without blanks around them ("bed " is one of ADE20K's)."""
    names = _told(meta, "classes")
    if not isinstance(names, (list, tuple)):
        return ()
    return tuple(str(name).strip() for name in names)


def palette_in(meta: Mapping[str, Any]) -> Palette:
    """Give the classes' colours; none where they are told in another way than as lists."""
    return palette_from(_told(meta, "palette"))


def palette_from(colours: Any) -> Palette:
    """Give colours, lists of red, green and blue, as tuples; none where they are anything else."""
    if not isinstance(colours, (list, tuple)) or not all(map(_is_colour, colours)):
        return ()
    return tuple((int(red), int(green), int(blue)) for red, green, blue in colours)


def _is_colour(colour: Any) -> bool:
    return (
        isinstance(colour, Sequence)
        and len(colour) == 3
        and all(isinstance(part, int) and 0 <= part <= 255 for part in colour)
    )


def _told(meta: Mapping[str, Any], key: str) -> Any:
    """What a ``meta`` of OpenMMLab's first versions, or of later ones, has for a key."""
    dataset = meta.get("dataset_meta")
    return meta.get(key.upper(), dataset.get(key) if isinstance(dataset, Mapping) else None)
