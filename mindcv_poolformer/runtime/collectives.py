"""Small exact exchanges between the ranks: counts, checks and a place to wait for each other."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping

import numpy as np
from mindspore import Tensor, nn, ops


def all_gather(array: np.ndarray, size: int) -> np.ndarray:
    """Gives every rank the arrays of all ranks, bit by bit.

    Args:
        array: equal shape and dtype on every rank, any dtype of a whole number of 16-bit words.
        size: number of ranks in the job; 1 needs no communication.

    Returns:
        (size, *array.shape), in the order of the ranks.
    """
    if size == 1:
        return array[None]
    # The CPU's collectives know floating point alone; float32 holds a 16-bit word exactly.
    words = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint16)
    gathered = ops.AllGather()(Tensor(words.astype(np.float32))).asnumpy()
    return np.frombuffer(gathered.astype(np.uint16).tobytes(), array.dtype).reshape(
        size, *array.shape
    )


def all_gather_arrays(arrays: Mapping[str, np.ndarray], size: int) -> list[dict[str, np.ndarray]]:
    """Gives every rank the named arrays of all ranks, of any shapes, in the order of the ranks.

    Args:
        arrays: of this rank.
        size: number of ranks in the job.
    """
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    gathered = []
    for content in _all_gather_bytes(buffer.getvalue(), size):
        with np.load(io.BytesIO(content)) as loaded:
            gathered.append({name: loaded[name] for name in loaded.files})
    return gathered


def _all_gather_bytes(content: bytes, size: int) -> list[bytes]:
    """Gives every rank the bytes of all ranks, of any lengths, in the order of the ranks."""
    lengths = all_gather(np.array([len(content)], np.int64), size)[:, 0].tolist()
    words = np.zeros(max(1, -(-max(lengths) // 2)), np.uint16)
    words.view(np.uint8)[: len(content)] = np.frombuffer(content, np.uint8)
    gathered = all_gather(words, size)
    return [row.tobytes()[:length] for row, length in zip(gathered, lengths, strict=True)]


def all_reduce_sum(array: np.ndarray, size: int) -> np.ndarray:
    """Sums an int64 or float64 array over the ranks: exact for integers, equal on every rank.

    Args:
        array: equal shape and dtype on every rank.
        size: number of ranks in the job.
    """
    return all_gather(array, size).sum(axis=0, dtype=array.dtype)


def barrier(size: int) -> None:
    """Returns when every rank has called it."""
    all_gather(np.zeros(1, np.float32), size)


def assert_identical(network: nn.Cell, size: int) -> None:
    """Checks that all ranks hold the same parameters, to the bit.

    They do when each builds the network from the same seed or file, so nothing is broadcast.

    Raises:
        RuntimeError: naming the ranks that differ from rank 0.
    """
    digest = hashlib.sha256()
    for name, parameter in network.parameters_and_names():
        digest.update(name.encode() + parameter.asnumpy().tobytes())
    digests = all_gather(np.frombuffer(digest.digest(), np.uint16), size)
    others = [rank for rank in range(size) if (digests[rank] != digests[0]).any()]
    if others:
        raise RuntimeError(f"parameters: ranks {others} differ from rank 0, expected equal ones")
