"""A PoolFormer of four narrow blocks for scripts whose subject is no variant.

    python tests/small_network.py SCRIPT FLAGS...

runs a script in a process that knows it by name.
"""

from __future__ import annotations

import runpy
import sys

SMALL = "poolformer_t4"
DEPTHS, DIMS = (1, 1, 1, 1), (8, 16, 24, 32)

if __name__ == "__main__":
    import mindcv_poolformer  # noqa: F401  before MindSpore
    from mindcv_poolformer.models.registry import register
    from mindcv_poolformer.models.variants import Variant

    # its own parameters and MACs are nobody's subject
    register(SMALL, Variant(DEPTHS, DIMS, 0.1, 0.9, 0, 0.0, 0.0, layer_scale_init=1e-5))
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
