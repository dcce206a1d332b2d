"""Reading everybody's weights files: .ckpt, .safetensors and PyTorch's pickles, safely."""

from __future__ import annotations

import json
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter
from safetensors import SafetensorError, safe_open

from ..runtime.checkpoint_file import read_checkpoint
from ..runtime.counted import counted
from ..runtime.errors import UserError

PICKLES = (".bin", ".pth", ".pt", ".tar")
FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")  # Hugging Face's, in its own order
# They tell which of several files has a parameter, where one would be too large.
INDICES = tuple(f"{name}.index.json" for name in FOLDER_FILES)
SUFFIXES = (".ckpt", ".safetensors", *PICKLES)
HEADER = "mindcv_poolformer"  # where a .safetensors of this project keeps its metadata
# Where training checkpoints of PyTorch keep a state dict. The first that is there is taken, as timm
# does: a moving average goes before the weights that it is of.
AVERAGES = ("state_dict_ema", "model_ema")
STATE_DICTS = (*AVERAGES, "state_dict", "model", "model_state_dict", "model_state", "module", "net")
_FLOATS = "float32, float16, bfloat16 or float64"
_BY_HAND = (
    "; if you trust the file, torch.load(FILE, weights_only=False) opens it in Python, and "
    "torch.save of its state dict alone writes one that is read here"
)


@dataclass(frozen=True, eq=False)
class Source:
    """A weights file as it is.

    Args:
        path: of the file itself, also if a folder was given.
        values: by the file's own names; what has floats is float32.
        metadata: what this project has stored with the weights; empty in other people's files.
        taken: the part of a training checkpoint that the values are, such as "state_dict_ema";
            empty for a file that is nothing else.
        left: what the file holds beside them.
        meta: what a training checkpoint of OpenMMLab's tells of itself.
    """

    path: Path
    values: dict[str, np.ndarray]
    metadata: dict[str, Any]
    taken: str = ""
    left: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)


def read_source(path: str | Path) -> Source:
    """Read a weights file, or the weights in a Hugging Face folder.

    Of a run's checkpoint, this project's or one of PyTorch's, only weights are taken. Floats of 16
    and 64 bits become float32; integers stay, since they count something beside the weights.

    Raises:
        UserError: there is no such file, its format is another, it is damaged, it holds tensors
            that float32 cannot express, or it is a pickle and there is no torch to read it with.
    """
    path = _file_in(Path(path))
    if path.name in INDICES:
        return _read_shards(path)
    if path.suffix == ".ckpt" and not _is_zip(path):  # Lightning's are PyTorch's
        return _read_mindspore(path)
    if path.suffix == ".safetensors":
        values, metadata = _read_safetensors(path)
        return Source(path, values, metadata)
    return _read_pickle(path)


def _file_in(path: Path) -> Path:
    """The weights file that is meant."""
    if path.is_dir():
        files = [path / name for name in (*FOLDER_FILES, *INDICES) if (path / name).is_file()]
        if not files:
            raise UserError(
                f"{path}: found neither of {', '.join(FOLDER_FILES)}, nor an index of several such "
                "files, expected one"
            )
        return files[0]
    if not path.is_file():
        raise UserError(f"{path}: found no such file or folder, expected one with weights")
    if path.suffix not in SUFFIXES and path.name not in INDICES:
        raise UserError(f"{path}: found {path.suffix!r}, expected one of {', '.join(SUFFIXES)}")
    return path


def _is_zip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _read_shards(path: Path) -> Source:
    """The weights in the files that an index of Hugging Face's names."""
    try:
        places = json.loads(path.read_bytes())["weight_map"]
        shards = sorted({path.parent / Path(name).name for name in places.values()})
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(
            f"{path}: found no readable index ({error!r}), expected it as transformers writes it"
        ) from None
    values: dict[str, np.ndarray] = {}
    for shard in shards:
        values |= read_source(shard).values
    missing = [name for name in places if name not in values]
    if missing:
        raise UserError(
            f"{path}: found no {missing[0]} in {places[missing[0]]}, expected it as the index says"
        )
    return Source(path, {name: values[name] for name in places}, {})


def _read_mindspore(path: Path) -> Source:
    checkpoint = read_checkpoint(path)
    values, texts = {}, []
    for name, value in checkpoint.weights.items():
        if not isinstance(value, Parameter):  # a text beside the weights
            texts.append(name)
        elif value.dtype == ms.bfloat16:
            values[name] = value.astype(ms.float32).asnumpy()
        else:
            values[name] = _widened(name, value.asnumpy(), path)
    return Source(path, values, checkpoint.metadata, left=tuple(texts))


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
        with safe_open(path, framework="np") as file:
            dtypes = {name: file.get_slice(name).get_dtype() for name in file.keys()}
            for name, dtype in dtypes.items():
                if dtype.startswith(("F8_", "F6_", "F4")):  # numpy has none
                    raise UserError(f"{path}: found {name} in {dtype}, expected {_FLOATS}")
            values = {
                name: _bfloat16(path, name)
                if dtype == "BF16"
                else _widened(name, file.get_tensor(name), path)
                for name, dtype in dtypes.items()
            }
            header = file.metadata() or {}
        metadata = json.loads(header.get(HEADER, "{}"))
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{path}: found no readable .safetensors file ({error})") from None
    return values, metadata


def _bfloat16(path: Path, name: str) -> np.ndarray:
    """One tensor of a .safetensors file as float32, of which bfloat16 is the first half."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(length))[name]
        begin, end = entry["data_offsets"]
        file.seek(8 + length + begin)
        halves = np.frombuffer(file.read(end - begin), "<u2").astype(np.uint32)
    return (halves << 16).view(np.float32).reshape(entry["shape"])


def _read_pickle(path: Path) -> Source:
    """The tensors of a state dict, plain or in a training checkpoint; nothing in the file is run.

    Objects of other classes, such as the argparse.Namespace in timm's checkpoints, are stood in for
    by empty ones: PyTorch's restricted unpickler gets to see no class that a file names.
    """
    torch = import_torch(path, "to read a pickle")
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (ValueError, RuntimeError, OSError, EOFError, pickle.UnpicklingError):
        foreign = []  # not as torch 1.6 and later write it; what it is, loading tells
    try:
        with torch.serialization.safe_globals([(_stand_in(name), name) for name in foreign]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: found more than tensors, or no PyTorch file at all, expected a state dict; "
            f"for safety nothing else is unpickled{_BY_HAND}"
        ) from None
    # torch answers damaged files with any of these.
    except (RuntimeError, EOFError, OSError, LookupError, ValueError, TypeError, AttributeError):
        raise UserError(f"{path}: found no readable PyTorch file, expected a whole one") from None
    taken, meta = "", None
    left: tuple[str, ...] = ()
    while part := _part(content, torch):
        meta = meta or content.get("meta")
        taken = f"{taken}.{part}" if taken else part
        left += tuple(str(key) for key in content if key != part)
        content = content[part]
    if not _has_tensors(content, torch):
        raise UserError(
            f"{path}: found no state dict, expected parameters by their names{_BY_HAND}"
        )
    others = [
        name
        for name, value in content.items()
        if not (isinstance(name, str) and isinstance(value, torch.Tensor))
    ]
    if others:
        raise UserError(
            f"{path}: found {counted(len(others), 'entry', 'entries')} other than named tensors, "
            f"such as {others[0]!r}, expected a state dict{_BY_HAND}"
        )
    values = {}
    for name, value in content.items():
        if value.dtype in (torch.bfloat16, torch.float16):
            value = value.float()
        try:
            values[name] = _widened(name, value.detach().numpy(), path)
        except (TypeError, RuntimeError):  # quantised or sparse tensors, floats of 8 bits
            raise UserError(
                f"{path}: found {name} in {str(value.dtype).removeprefix('torch.')}, "
                f"expected {_FLOATS}"
            ) from None
    return Source(path, values, {}, taken, left, meta if isinstance(meta, Mapping) else {})


def _part(content: Any, torch: ModuleType, depth: int = 3) -> str:
    """Where a training checkpoint keeps its state dict, or what has it within; else empty.

    By the names that are known, or because nothing else in it has tensors by names.
    """
    if not isinstance(content, Mapping):
        return ""
    known = next((name for name in STATE_DICTS if _has_tensors(content.get(name), torch)), "")
    if known or not depth or _has_tensors(content, torch):
        return known
    inside = [
        name
        for name, value in content.items()
        if isinstance(name, str)
        and (_part(value, torch, depth - 1) or _has_tensors(value, torch))
        and all(isinstance(each, str) for each in value)
    ]
    return inside[0] if len(inside) == 1 else ""


def _has_tensors(content: Any, torch: ModuleType) -> bool:
    return isinstance(content, Mapping) and any(
        isinstance(value, torch.Tensor) for value in content.values()
    )


class _Nothing:
    """What an object of a class that a pickle names becomes."""

    def __new__(cls, *_: Any) -> _Nothing:
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


class _NoDict:
    """The same of a dict's subclass: PyTorch fills none but its own."""

    def __new__(cls, *_: Any) -> Any:
        return OrderedDict()


class _NoList:
    """The same of a list's subclass."""

    def __new__(cls, *_: Any) -> Any:
        return []


def _stand_in(name: str) -> type:
    """What to have for a class, by its name alone."""
    word = name.rpartition(".")[2].lower()
    return _NoDict if "dict" in word else _NoList if "list" in word else _Nothing


def import_torch(path: Path, purpose: str) -> ModuleType:
    """Give PyTorch, 2.6 or later: before it, even weights_only could be tricked (CVE-2025-32434).

    Raises:
        UserError: there is none, or an older one; it tells the purpose.
    """
    remedy = f'expected torch 2.6 or later {purpose}: pip install "torch>=2.6"'
    try:
        import torch
    except ImportError:
        raise UserError(f"{path}: found no torch, {remedy}") from None
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):
        raise UserError(f"{path}: found torch {torch.__version__}, {remedy}")
    return torch


def _widened(name: str, value: np.ndarray, path: Path) -> np.ndarray:
    """Floats as float32; anything else as it is."""
    if value.dtype.kind != "f":
        return value
    try:
        with np.errstate(over="raise"):
            return value.astype(np.float32, copy=False)
    except FloatingPointError:
        raise UserError(
            f"{path}: found {name} in {value.dtype} beyond the range of float32, expected {_FLOATS}"
        ) from None
