"""The threads in which bundles run where several threads have work for them."""

from concurrent.futures import ThreadPoolExecutor

# MindSpore compiles and runs in one thread; ONNX Runtime uses all cores for one run.
DEVICE = ThreadPoolExecutor(1, "device")

# Classifiers in ONNX Runtime: while one run waits for its last core, the other has the rest.
AT_ONCE = 2
SIDE_BY_SIDE = ThreadPoolExecutor(AT_ONCE, "side_by_side")


def threads_for(at_once: int) -> ThreadPoolExecutor:
    """Give the threads of what has so many runs at once: all that has several shares them."""
    return DEVICE if at_once == 1 else SIDE_BY_SIDE
