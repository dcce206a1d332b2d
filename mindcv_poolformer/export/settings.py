"""model-settings.json: what MLServer needs to serve a bundle's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .description import CLASSIFICATION

SETTINGS = "model-settings.json"
RUNTIME = "mindcv_poolformer.serving.runtime.PoolFormerRuntime"
BATCH_SIZE = 16  # requests that are answered together, for a bundle of any batch size
BATCH_SECONDS = 0.01  # that the first of them waits for the others
VERSION = "1"  # MLServer takes a bundle of none for newer than any
_DATATYPES = {"float32": "FP32", "uint8": "UINT8"}  # in the Open Inference Protocol's words


def write_settings(folder: Path, description: dict[str, Any]) -> None:
    """Write model-settings.json for the content of model.json."""
    settings = {
        "name": description["model"],
        "implementation": RUNTIME,
        "parameters": {"uri": ".", "version": VERSION},
    }
    if description["task"] == CLASSIFICATION:  # others answer one by one, and give no logits
        settings |= _batches(description)
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _batches(description: dict[str, Any]) -> dict[str, Any]:
    fixed = [graph["batch_size"] for graph in description["graphs"].values()]
    return {
        "max_batch_size": max((size for size in fixed if size), default=BATCH_SIZE),
        "max_batch_time": BATCH_SECONDS,
        "inputs": [_tensor(description["input"])],
        "outputs": [_tensor(description["output"])],
    }


def _tensor(end: dict[str, Any]) -> dict[str, Any]:
    """A graph's end; the server batches, so the number of images is free."""
    shape = [-1, *end["shape"][1:]]
    return {"name": end["name"], "datatype": _DATATYPES[end["dtype"]], "shape": shape}
