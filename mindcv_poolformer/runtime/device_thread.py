"""The threads in which bundles run where several threads have work for them."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache

# MindSpore compiles and runs in one thread. So does what has one run at once in ONNX Runtime.
DEVICE = ThreadPoolExecutor(1, "device")


@cache
def threads_for(runs: int) -> ThreadPoolExecutor:
    """Give the threads of what has so many runs at once: all that has as many shares them."""
    return DEVICE if runs == 1 else ThreadPoolExecutor(runs, "side_by_side")
