"""PoolFormers of few blocks, narrow and wide, for scripts whose subject is no variant.

    python tests/small_network.py SCRIPT FLAGS...

runs a script in a process that knows it by name.
"""

from __future__ import annotations

import runpy
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mindcv_poolformer.models import PoolFormer

SMALL = "poolformer_t4"
SMALL_SEGMENTER = "semantic_fpn_poolformer_t4"
SMALL_DETECTOR = "retinanet_poolformer_t4"
WIDE = "poolformer_w2"  # of PoolFormer-S12's channels: its steps and its files take their time
DEPTHS, WIDE_DEPTHS = (1, 1, 1, 1), (1, 0, 0, 1)
DIMS, WIDE_DIMS = (8, 16, 24, 32), (64, 128, 320, 512)


def small(num_classes: int, in_channels: int = 3) -> PoolFormer:
    """Give a network as the scripts build SMALL, to a process that does not know it by name."""
    from mindcv_poolformer.models import PoolFormer

    return PoolFormer(DEPTHS, DIMS, num_classes=num_classes, in_channels=in_channels)


def forget(backbone: str) -> None:
    """Take a variant that was registered, and the models on it, out of all tables again."""
    from mindcv.models import registry as mindcvs

    from mindcv_poolformer.models import registry, variants
    from mindcv_poolformer.models.dense import entry_points

    known_by = {backbone: (registry, variants._TABLE)}
    known_by[variants.PREFIX + backbone] = (entry_points, variants._SEGMENTERS)
    for name in (f"retinanet_{backbone}", f"mask_rcnn_{backbone}"):
        known_by[name] = (entry_points, variants._DETECTORS)
    for known, (module, table) in known_by.items():
        if known not in table:
            continue
        del module.default_cfgs[known], table[known]
        mindcvs._model_entrypoints.pop(known)
        mindcvs._model_to_module.pop(known)
        for models in mindcvs._module_to_models.values():
            models.discard(known)


def register_small() -> None:
    """Let MindCV and the scripts know the two by name, and the models on them."""
    from mindcv_poolformer.models.dense import entry_points
    from mindcv_poolformer.models.registry import register
    from mindcv_poolformer.models.variants import Variant

    # Their own parameters and MACs are nobody's subject.
    for name, depths, dims in ((SMALL, DEPTHS, DIMS), (WIDE, WIDE_DEPTHS, WIDE_DIMS)):
        register(name, Variant(depths, dims, 0.1, 0.9, 0, 0.0, 0.0, layer_scale_init=1e-5))
        entry_points.register(name)


if __name__ == "__main__":
    import mindcv_poolformer  # noqa: F401  before MindSpore

    # isort: split
    import mindspore as ms

    ms.runtime.launch_blocking()  # as in conftest.py
    register_small()
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
