"""To be imported by what does nothing without MindSpore, before that: it ends with one line."""

import sys

from .environment import is_installed

if not is_installed("mindspore"):
    sys.exit(
        "error: found no package mindspore, expected it: pip install -r requirements.txt; without "
        "it predict.py and the server use a bundle's ONNX graph"
    )
