"""Loading checkpoints into networks, with nothing missing and nothing left over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..models.poolformer import NORM_POOL, POOL_NORM, PoolFormer
from ..runtime.checkpoint_file import fill, read_checkpoint
from ..runtime.errors import UserError


def head_order(metadata: Mapping[str, Any], path: str | Path) -> str:
    """Give the ``head`` of the PoolFormer that a checkpoint wants; without metadata the official.

    Raises:
        UserError: the metadata name another.
    """
    head = metadata.get("head", NORM_POOL)
    if head not in (NORM_POOL, POOL_NORM):
        raise UserError(f"{path}: found the head {head!r}, expected {NORM_POOL} or {POOL_NORM}")
    return head


def load_weights(network: PoolFormer, path: str | Path) -> dict[str, Any]:
    """Fill every parameter of ``network`` from a checkpoint; give the checkpoint's metadata.

    Raises:
        UserError: the checkpoint wants another ``head`` than the network has, or as
            :func:`read_checkpoint` and :func:`fill`.
    """
    checkpoint = read_checkpoint(path)
    head = head_order(checkpoint.metadata, path)
    if head != network.head_order:
        raise UserError(
            f"{path}: found weights for the head {head}, expected {network.head_order} as in the "
            f'model; create the model with head="{head}"'
        )
    fill({p.name: p for p in network.get_parameters()}, checkpoint.weights, path)
    return checkpoint.metadata


def check_model(metadata: Mapping[str, Any], model: str, path: str | Path) -> None:
    """Compare the model that a checkpoint names, if it does, with the one that is to take it.

    Raises:
        UserError: they differ.
    """
    if metadata.get("model", model) != model:
        raise UserError(f"model: found {model} for {path}, expected its {metadata['model']}")
