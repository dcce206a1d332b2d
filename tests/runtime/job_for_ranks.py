"""A job for test_launch.py to start on several ranks; its one argument says how it shall end."""

import os
import signal
import sys
import time

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from mindcv_poolformer.runtime.collectives import (
    all_gather,
    all_gather_arrays,
    all_reduce_sum,
    assert_identical,
    barrier,
)
from mindcv_poolformer.runtime.device import set_up_device
from mindcv_poolformer.runtime.errors import UserError, run
from mindcv_poolformer.runtime.launch import World, discover, joined


class Mean(nn.Cell):
    """A compiled collective, as in a training step."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.all_reduce = ops.AllReduce()

    def construct(self, x: Tensor) -> Tensor:
        return self.all_reduce(x) / self.size


def check_collectives(world: World) -> None:
    mean = Mean(world.size)(Tensor([float(world.rank), 1.0]))
    assert mean.asnumpy().tolist() == [(world.size - 1) / 2, 1.0]
    # Beyond the integers that float32 and float64 hold, negative, and a two-dimensional shape.
    counts = np.array([[2**53 + 1, -3], [world.rank, 0]], np.int64)
    expected = [[world.size * (2**53 + 1), -3 * world.size], [sum(range(world.size)), 0]]
    assert all_reduce_sum(counts, world.size).tolist() == expected
    thirds = all_reduce_sum(np.array([1 / 3]), world.size)
    assert thirds.dtype == np.float64 and thirds[0] == sum([1 / 3] * world.size)
    odd = np.array([np.nan, -0.0, 1e300 * (world.rank + 1)])
    assert all_gather(odd, world.size)[world.rank].tobytes() == odd.tobytes()
    own = [
        {"places": np.arange(255 * rank, dtype=np.uint8).reshape(-1, 5), "thirds": thirds / rank}
        for rank in range(1, world.size + 1)
    ]
    gathered = all_gather_arrays(own[world.rank], world.size)
    for found, expected_arrays in zip(gathered, own, strict=True):
        assert found.keys() == expected_arrays.keys()
        for name, array in expected_arrays.items():
            np.testing.assert_array_equal(found[name], array, strict=True)


def check_identical(world: World) -> None:
    dense = nn.Dense(2, 3, weight_init="ones", has_bias=False)
    assert_identical(dense, world.size)
    if world.rank == world.size - 1:
        weight = dense.weight.asnumpy()
        weight[0, 0] = np.nextafter(weight[0, 0], np.float32(2))  # one bit
        dense.weight.set_data(Tensor(weight))
    try:
        assert_identical(dense, world.size)
    except RuntimeError as error:
        print(f"noticed: {error}\n", end="", flush=True)


def end(how: str, world: World) -> None:
    if how == "exception, then UserError elsewhere":
        if world.rank == world.size - 1:
            raise ValueError("the cause")
        time.sleep(0.2)
        raise UserError("the consequence")
    if how == "killed first" and world.is_main:
        os.kill(os.getpid(), signal.SIGKILL)
    if how.startswith("exit "):
        sys.exit(int(how.removeprefix("exit ")))
    if how == "sleep":
        print("asleep\n", end="", flush=True)
    if how != "success":
        time.sleep(100)


def main() -> None:
    how = sys.argv[1]
    world = discover()
    set_up_device("CPU", mode=0, jit_level=None, world=world)
    with joined(world, "CPU"):
        print(f"{world} {ms.communication.get_rank()}\n", end="", flush=True)
        if how == "success":
            check_collectives(world)
            check_identical(world)
        barrier(world.size)  # all have joined and said so
        end(how, world)


if __name__ == "__main__":
    run(main)
