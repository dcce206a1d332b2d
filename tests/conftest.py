from __future__ import annotations

import os

os.environ["MINDCV_POOLFORMER_GRAPH_KERNELS"] = "0"  # see the fixture graph_kernels

import mindcv_poolformer  # noqa: F401  sets the CPU up, before MindSpore is imported

# isort: split
import mindspore as ms

del os.environ["MINDCV_POOLFORMER_GRAPH_KERNELS"]

# isort: split
import gc
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `official`, `scripts`

from scripts import Twins, train_twins  # noqa: E402
from small_network import SMALL, WIDE, forget, register_small  # noqa: E402

from mindcv_poolformer.models import registry, variants  # noqa: E402
from mindcv_poolformer.models.dense import entry_points  # noqa: E402
from mindcv_poolformer.models.parts.layout import layout  # noqa: E402
from mindcv_poolformer.runtime.cpu import KERNEL_FLAGS  # noqa: E402
from mindcv_poolformer.runtime.mindspore_log import unlogged  # noqa: E402

ms.set_device("CPU")  # as the scripts do; too late once a kernel has run
ms.runtime.launch_blocking()  # else PyNative's queues spin, and take three quarters of its time


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--layout", choices=["NCHW", "NHWC"], help="lay maps so; NCHW is Ascend's")


@pytest.fixture(autouse=True, scope="session")
def _layout(request: pytest.FixtureRequest) -> Iterator[None]:
    with layout(request.config.getoption("--layout")):
        yield


@pytest.fixture(autouse=True, scope="module")
def _frozen() -> None:
    """Keep what is imported out of garbage collections: MindSpore asks for one at each compile."""
    if not gc.get_freeze_count():  # at first, and once data workers were forked: see data/loader.py
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def graph_mode() -> Iterator[None]:
    """Every test starts in graph mode, whatever the last one left."""
    ms.set_context(mode=ms.GRAPH_MODE)
    yield


@pytest.fixture
def graph_kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fuse elementwise chains, as a process on a CPU does; compiling takes twice as long."""
    if request.config.getoption("--layout") == "NCHW":  # on a host with NPUs there are none
        yield
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})  # as runtime/cpu.py tells
    with unlogged():
        ms.set_context(enable_graph_kernel=True, graph_kernel_flags=KERNEL_FLAGS)
    yield
    with unlogged():
        ms.set_context(enable_graph_kernel=False)


@pytest.fixture
def pynative_mode(graph_mode: None) -> None:
    """Run a test in PyNative mode."""
    ms.set_context(mode=ms.PYNATIVE_MODE)


@pytest.fixture(params=[pytest.param("graph", marks=pytest.mark.long), "pynative"])
def both_modes(request: pytest.FixtureRequest, graph_mode: None) -> str:
    """Run a test in graph mode, of which compiling takes seconds, and in PyNative mode."""
    ms.set_context(mode=ms.GRAPH_MODE if request.param == "graph" else ms.PYNATIVE_MODE)
    return request.param


@pytest.fixture(scope="session")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Twins:
    """One recipe trained twice at the same time, for the tests of train.py to look at."""
    return train_twins(tmp_path_factory.mktemp("twins"))


@pytest.fixture(scope="module")
def small_is_known() -> Iterator[None]:
    """Let this process know ``small_network.py``'s by name, as long as a file's tests run."""
    register_small()
    yield
    for name in (SMALL, WIDE):
        forget(name)


@pytest.fixture(scope="module")
def tiny_segmenter() -> Iterator[str]:
    """The name of a segmentation model on a tiny backbone, known as long as a file's tests run.

    So are the detectors on it.
    """
    backbone, name = "poolformer_tiny", "semantic_fpn_poolformer_tiny"
    registry.register(
        backbone,
        variants.Variant(
            (1, 1, 1, 1), (8, 16, 24, 40), 0.1, 0.9, 0, 0.0, 0.0, layer_scale_init=1e-5
        ),
    )
    entry_points.register(backbone)
    yield name
    forget(backbone)
