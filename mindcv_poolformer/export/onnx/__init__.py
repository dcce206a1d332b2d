"""ONNX: what writes a deploy form as its operators, and ONNX Runtime to run it."""

import os

# Before ONNX Runtime is imported anywhere in here: from 1.29 on it tells Microsoft of each process,
# and leaves a file with an identifier.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
