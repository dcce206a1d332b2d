"""Reading MindSpore checkpoints, and loading them with nothing missing and nothing left over."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import Parameter, nn

from ..runtime.errors import UserError

# What training keeps beside the weights carries this prefix, so that a checkpoint of a run is a
# checkpoint of the model too.
TRAINING_PREFIX = "train."


def read_checkpoint(path: str | Path) -> tuple[dict[str, Parameter], dict[str, Any]]:
    """Read a ``.ckpt`` file.

    Returns:
        every parameter by its name, and the metadata this project saves with them: empty for other
        people's checkpoints.

    Raises:
        UserError: the file is missing or is no MindSpore checkpoint.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: found no such file, expected a MindSpore checkpoint (.ckpt)")
    try:
        entries = ms.load_checkpoint(str(path))
    except ValueError:
        raise UserError(
            f"{path}: found no readable MindSpore checkpoint, expected a complete .ckpt file"
        ) from None
    metadata = json.loads(entries.pop("metadata", "{}"))
    return entries, metadata


def load_weights(network: nn.Cell, path: str | Path) -> dict[str, Any]:
    """Fill every parameter of ``network`` from a checkpoint; give the checkpoint's metadata.

    Raises:
        UserError: as :func:`read_checkpoint` and :func:`fill`.
    """
    entries, metadata = read_checkpoint(path)
    weights = {k: v for k, v in entries.items() if not k.startswith(TRAINING_PREFIX)}
    fill({p.name: p for p in network.get_parameters()}, weights, path)
    return metadata


def fill(
    parameters: Mapping[str, Parameter], values: Mapping[str, Parameter], source: str | Path
) -> None:
    """Give each parameter the value of its name; nothing may be missing or left over.

    Args:
        parameters: what is filled, by name.
        values: what it is filled with; cast to the parameter's type.
        source: where the values come from, for the error.

    Raises:
        UserError: a parameter of one side has no match of the same shape on the other. At most ten
            are named. Nothing is filled then.
    """
    misfits = list(_misfits(parameters, values))
    if misfits:
        named = "; ".join(misfits[:10])
        more = f"; and {len(misfits) - 10} more" if len(misfits) > 10 else ""
        raise UserError(f"{source}: {len(misfits)} parameters do not fit the model: {named}{more}")
    for name, parameter in parameters.items():
        parameter.set_data(values[name].value().astype(parameter.dtype))


def _misfits(expected: Mapping[str, Parameter], found: Mapping[str, Parameter]) -> Iterable[str]:
    for name, parameter in expected.items():
        if name not in found:
            yield f"{name} is missing"
        elif found[name].shape != parameter.shape:
            yield f"{name} found {found[name].shape}, expected {parameter.shape}"
    for name in found:
        if name not in expected:
            yield f"{name} is not in the model"
