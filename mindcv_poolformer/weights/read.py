"""Reading everybody's weights files: .ckpt, .safetensors and PyTorch's pickles, safely."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from mindspore import Parameter
from safetensors import SafetensorError, safe_open

from ..runtime.checkpoint_file import read_checkpoint
from ..runtime.errors import UserError

PICKLES = (".bin", ".pth", ".pt", ".tar")
FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")  # Hugging Face's, in its own order
SUFFIXES = (".ckpt", ".safetensors", *PICKLES)
HEADER = "mindcv_poolformer"  # where a .safetensors of this project keeps its metadata
_FLOATS = ("float32", "float16")


@dataclass(frozen=True, eq=False)
class Source:
    """A weights file as it is.

    Args:
        path: of the file itself, also if a folder was given.
        values: by the file's own names; float32.
        metadata: what this project has stored with the weights; empty in other people's files.
    """

    path: Path
    values: dict[str, np.ndarray]
    metadata: dict[str, Any]


def read_source(path: str | Path) -> Source:
    """Read a weights file, or the weights in a Hugging Face folder.

    A MindSpore checkpoint of a run gives its weights alone, without the state of training.

    Raises:
        UserError: there is no such file, its format is another, it is damaged, it holds something
            else than tensors in float32 or float16, or it is a pickle and there is no torch to
            read it with.
    """
    path = _file_in(Path(path))
    if path.suffix == ".ckpt":
        checkpoint = read_checkpoint(path)
        weights, metadata = checkpoint.weights, checkpoint.metadata
        dtypes = {
            name: str(value.dtype).lower() if isinstance(value, Parameter) else "text"
            for name, value in weights.items()
        }
        _check_dtypes(dtypes, path)
        values = {name: value.asnumpy() for name, value in weights.items()}
    elif path.suffix == ".safetensors":
        values, metadata = _read_safetensors(path)
    else:
        values, metadata = _read_pickle(path), {}
    return Source(path, {k: v.astype(np.float32, copy=False) for k, v in values.items()}, metadata)


def _file_in(path: Path) -> Path:
    """The weights file that is meant."""
    if path.is_dir():
        files = [path / name for name in FOLDER_FILES if (path / name).is_file()]
        if not files:
            raise UserError(f"{path}: found neither of {', '.join(FOLDER_FILES)}, expected one")
        return files[0]
    if not path.is_file():
        raise UserError(f"{path}: found no such file or folder, expected one with weights")
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: found {path.suffix!r}, expected one of {', '.join(SUFFIXES)}")
    return path


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
        with safe_open(path, framework="np") as file:
            dtypes = {name: _long_name(file.get_slice(name).get_dtype()) for name in file.keys()}
            _check_dtypes(dtypes, path)
            values = {name: file.get_tensor(name) for name in dtypes}
            header = file.metadata() or {}
        metadata = json.loads(header.get(HEADER, "{}"))
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{path}: found no readable .safetensors file ({error})") from None
    return values, metadata


def _long_name(dtype: str) -> str:
    return {"F32": "float32", "F16": "float16"}.get(dtype, dtype)


def _read_pickle(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict, plain or under "state_dict"; nothing in the file is run."""
    torch = _import_torch(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: found more than tensors, or no PyTorch file at all, expected a state dict; "
            "for safety nothing else is unpickled"
        ) from None
    # torch answers damaged files with any of these.
    except (RuntimeError, EOFError, OSError, LookupError, ValueError, TypeError, AttributeError):
        raise UserError(f"{path}: found no readable PyTorch file, expected a whole one") from None
    if isinstance(content, Mapping):
        content = content.get("state_dict", content)
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"{path}: found no state dict, expected parameters by their names")
    others = [
        name
        for name, value in content.items()
        if not (isinstance(name, str) and isinstance(value, torch.Tensor))
    ]
    if others:
        raise UserError(
            f"{path}: found {len(others)} entries that are no named tensors, such as "
            f"{others[0]!r}, expected a state dict"
        )
    _check_dtypes({k: str(v.dtype).removeprefix("torch.") for k, v in content.items()}, path)
    return {name: value.detach().numpy() for name, value in content.items()}


def _import_torch(path: Path) -> ModuleType:
    """PyTorch, 2.6 or later: before it, even weights_only could be tricked (CVE-2025-32434)."""
    remedy = 'expected torch 2.6 or later to read a pickle: pip install "torch>=2.6"'
    try:
        import torch
    except ImportError:
        raise UserError(f"{path}: found no torch, {remedy}") from None
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):
        raise UserError(f"{path}: found torch {torch.__version__}, {remedy}")
    return torch


def _check_dtypes(dtypes: Mapping[str, str], path: Path) -> None:
    for name, dtype in dtypes.items():
        if dtype not in _FLOATS:
            raise UserError(f"{path}: found {name} in {dtype}, expected {' or '.join(_FLOATS)}")
