"""The thread in which bundles run where several threads have work for them."""

from concurrent.futures import ThreadPoolExecutor

# MindSpore compiles and runs in one thread; ONNX Runtime uses all cores for one run.
DEVICE = ThreadPoolExecutor(1, "device")
