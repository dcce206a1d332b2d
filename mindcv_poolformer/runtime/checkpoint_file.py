"""MindSpore checkpoint files: weights and, beside them, metadata and the state of training."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import mindspore as ms
from mindspore import Parameter, Tensor

from .errors import UserError
from .files import replaced_file
from .mindspore_log import unlogged

# The state carries this prefix, so that a checkpoint of a run is a checkpoint of the model too.
STATE_PREFIX = "train."
_METADATA = "metadata"
# What MindSpore's crc_check puts after everything else: this word and ten bytes of CRC-32.
_CRC_MARK = b"crc_num"
_CRC_BYTES = 10


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Args:
        weights: by the model's parameter names.
        metadata: what is known about them; empty in other people's checkpoints.
        state: what training changes beside the weights, by name; empty but in a run's last one.
    """

    weights: dict[str, Parameter]
    metadata: dict[str, Any]
    state: dict[str, Parameter]


class Shaped(Protocol):
    """A parameter or an array."""

    @property
    def shape(self) -> tuple[int, ...]: ...


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a ``.ckpt`` file, this project's or another's.

    Raises:
        UserError: the file is missing, is no MindSpore checkpoint, or is not as it was written:
            this project's carry a checksum.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: found no such file, expected a MindSpore checkpoint (.ckpt)")
    _check_crc(Path(path))
    try:
        with unlogged():
            entries = ms.load_checkpoint(str(path))
    except ValueError:
        raise UserError(
            f"{path}: found no readable MindSpore checkpoint, expected a complete .ckpt file"
        ) from None
    metadata = _read_metadata(entries.pop(_METADATA, "{}"), path)
    state = {name: value for name, value in entries.items() if name.startswith(STATE_PREFIX)}
    weights = {name: value for name, value in entries.items() if name not in state}
    return Checkpoint(
        weights, metadata, {k.removeprefix(STATE_PREFIX): v for k, v in state.items()}
    )


def _read_metadata(text: str, path: str | Path) -> dict[str, Any]:
    try:
        metadata = json.loads(text)
    except ValueError:
        metadata = None
    if not isinstance(metadata, dict):
        raise UserError(f"{path}: found metadata {text!r:.60}, expected a JSON object")
    return metadata


def save_checkpoint(
    path: Path,
    weights: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    state: Mapping[str, Tensor] | None = None,
    backup: Path | None = None,
) -> None:
    """Write a MindSpore checkpoint; ``path`` holds the old file or the new one, whole.

    Args:
        path: ends in .ckpt.
        weights: by the model's parameter names.
        metadata: what JSON can express.
        state: of training.
        backup: where the old file goes, see :func:`replaced_file`.

    Raises:
        UserError: the file system does not take it.
    """
    entries = dict(weights)
    entries |= {STATE_PREFIX + name: value for name, value in (state or {}).items()}
    text = {_METADATA: json.dumps(metadata)}
    rows = [{"name": name, "data": Tensor(value)} for name, value in entries.items()]
    with replaced_file(path, backup) as temporary, unlogged():
        ms.save_checkpoint(rows, str(temporary), append_dict=text, crc_check=True)


def _check_crc(path: Path) -> None:
    """Compare the checksum, where there is one, before MindSpore's parser trusts the content."""
    content = memoryview(path.read_bytes())
    trailer = content[-len(_CRC_MARK) - _CRC_BYTES :]
    if trailer[: len(_CRC_MARK)] != _CRC_MARK:
        return
    expected = int.from_bytes(trailer[len(_CRC_MARK) :], "big")
    if zlib.crc32(content[: -len(trailer)]) != expected:
        raise UserError(f"{path}: found a damaged checkpoint, expected one as it was written")


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
    check_fit(parameters, values, source)
    for name, parameter in parameters.items():
        parameter.set_data(values[name].value().astype(parameter.dtype))


def check_fit(
    expected: Mapping[str, Shaped], found: Mapping[str, Shaped], source: str | Path
) -> None:
    """Compare names and shapes.

    Raises:
        UserError: as :func:`fill`.
    """
    misfits = list(_misfits(expected, found))
    if misfits:
        named = "; ".join(misfits[:10])
        more = f"; and {len(misfits) - 10} more" if len(misfits) > 10 else ""
        do = "parameter does" if len(misfits) == 1 else "parameters do"
        raise UserError(f"{source}: {len(misfits)} {do} not fit the model: {named}{more}")


def _misfits(expected: Mapping[str, Shaped], found: Mapping[str, Shaped]) -> Iterable[str]:
    for name, parameter in expected.items():
        if name not in found:
            yield f"{name} is missing"
        elif found[name].shape != parameter.shape:
            yield f"{name} found {tuple(found[name].shape)}, expected {tuple(parameter.shape)}"
    for name in found:
        if name not in expected:
            yield f"{name} is not in the model"
