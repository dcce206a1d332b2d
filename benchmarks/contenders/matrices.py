"""The machine's fp32 peak: the product of two large square matrices, by NumPy or by PyTorch."""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.contenders.serve import Call, Workload, serve


def by_numpy(given: argparse.Namespace) -> Workload:
    """NumPy's BLAS; the size is the edge of the matrices."""

    def prepare(batch: int, size: int) -> Call:
        a, b = _factors(size)
        product = np.empty_like(a)

        def call() -> None:
            np.matmul(a, b, out=product)

        return call

    return Workload(prepare)


def by_torch(given: argparse.Namespace) -> Workload:
    """PyTorch's BLAS; the size is the edge of the matrices."""
    import torch  # not in the NumPy contender

    def prepare(batch: int, size: int) -> Call:
        a, b = map(torch.from_numpy, _factors(size))
        product = torch.empty_like(a)

        def call() -> None:
            torch.matmul(a, b, out=product)

        return call

    return Workload(prepare)


def _factors(edge: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, edge, edge), dtype=np.float32)
    return a, b


if __name__ == "__main__":
    serve({"numpy": by_numpy, "torch": by_torch})
