"""Device and mode, on a machine that has the CPU alone."""

import inspect
from collections.abc import Iterator

import mindspore as ms
import pytest
from mindspore import device_context

from mindcv_poolformer.runtime.device import set_up_device
from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.runtime.launch import World


@pytest.fixture(autouse=True)
def _context() -> Iterator[None]:
    mode, jit_config = ms.get_context("mode"), dict(ms.context.get_jit_config())
    yield
    ms.set_context(mode=mode, jit_config=jit_config)


@pytest.mark.parametrize("mode", [0, 1])
def test_cpu(mode: int) -> None:
    set_up_device("CPU", mode, "O0", World())
    assert ms.get_context("device_target") == "CPU"
    assert ms.get_context("mode") == mode
    assert ms.context.get_jit_config() == {"jit_level": "O0"}


def test_ascend_is_not_here() -> None:
    with pytest.raises(UserError, match="device_target: .*--device_target CPU"):
        set_up_device("Ascend", 0, None, World())


@pytest.mark.parametrize(("local_rank", "fits"), [(0, True), (7, True), (8, False)])
def test_a_rank_takes_the_device_of_its_local_rank(
    monkeypatch: pytest.MonkeyPatch, local_rank: int, fits: bool
) -> None:
    chosen = []

    def bound(owner: object, name: str, answer: object = None) -> None:
        """Replace what only an NPU can do; the call must fit the function that is installed."""
        signature = inspect.signature(getattr(owner, name))

        def call(*args: object, **kwargs: object) -> object:
            taken = signature.bind(*args, **kwargs).arguments
            if answer is None:
                chosen.append((name, *taken.values()))
            return answer

        monkeypatch.setattr(owner, name, call)

    bound(device_context.ascend, "is_available", True)
    bound(device_context.ascend, "device_count", 8)
    bound(ms, "set_device")
    bound(ms, "set_deterministic")
    bound(device_context.ascend.op_precision, "conv_allow_hf32")
    bound(device_context.ascend.op_precision, "matmul_allow_hf32")
    world = World(rank=8 + local_rank, size=32, local_rank=local_rank, launcher="mpirun")
    if fits:
        set_up_device("Ascend", 0, None, world)
        set_up_device("Ascend", 0, None, world, deterministic=True, hf32=True)
        device = ("set_device", "Ascend", local_rank)
        exact = [("conv_allow_hf32", False), ("matmul_allow_hf32", False)]
        rounded = [("conv_allow_hf32", True), ("matmul_allow_hf32", True)]
        assert chosen == [device, *exact, device, *rounded, ("set_deterministic", True)]
    else:
        with pytest.raises(UserError, match="mpirun: found rank 9 on a host of 8 devices"):
            set_up_device("Ascend", 0, None, world)
        assert chosen == []
