"""train.py as on an Ascend device, whose queue of batches is an iterator on the CPU.

    python tests/ascend/train_with_queue.py FLAGS...

What only a device can do is left out; the training loop, the feed and their errors are the real
ones. The recipe's model may be the small network.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import mindcv_poolformer  # noqa: F401

# isort: split
import mindspore as ms
from mindspore import Tensor
from mindspore.dataset import Dataset

from mindcv_poolformer.runtime import device
from tests.small_network import register_small


def queue(fn: Callable[..., Tensor], dataset: Dataset) -> Callable[[], Tensor]:
    """As mindspore.data_sink, whose calls take the next batch; there must be one."""
    assert dataset.get_dataset_size() > 0
    stream = dataset.create_tuple_iterator(num_epochs=1)
    return lambda: fn(*next(stream))


if __name__ == "__main__":
    ms.data_sink = queue
    ms.set_device, real_set_device = (lambda *device: real_set_device("CPU")), ms.set_device
    device._check_ascend = lambda world: None
    precision = ms.device_context.ascend.op_precision
    precision.conv_allow_hf32 = precision.matmul_allow_hf32 = lambda value: None

    register_small()
    sys.argv[0] = str(Path(__file__).parents[2] / "train.py")
    runpy.run_path(sys.argv[0], run_name="__main__")
