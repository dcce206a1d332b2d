"""Device and mode, on a machine that has the CPU alone."""

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
    monkeypatch.setattr(device_context.ascend, "is_available", lambda: True)
    monkeypatch.setattr(device_context.ascend, "device_count", lambda: 8)
    monkeypatch.setattr(ms, "set_device", lambda *device: chosen.append(device))
    monkeypatch.setattr(ms, "set_deterministic", chosen.append)
    world = World(rank=8 + local_rank, size=32, local_rank=local_rank, launcher="mpirun")
    if fits:
        set_up_device("Ascend", 0, None, world)
        set_up_device("Ascend", 0, None, world, deterministic=True)
        assert chosen == [("Ascend", local_rank), ("Ascend", local_rank), True]
    else:
        with pytest.raises(UserError, match="mpirun: found rank 9 on a host of 8 devices"):
            set_up_device("Ascend", 0, None, world)
        assert chosen == []
