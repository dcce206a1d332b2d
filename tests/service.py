"""The real server in a real process, and clients that nobody here wrote."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tritonclient.grpc
import tritonclient.http
from scripts import Running
from small_network import SMALL
from tritonclient.utils import InferenceServerException

from mindcv_poolformer.data.preprocess import EvalTransform
from mindcv_poolformer.runtime.ports import free_port

CLASSES = ("zéro", *"123456789")
TRANSFORM = EvalTransform(32, 0.8, "bicubic", (120.0, 115.0, 100.0), (60.0, 50.0, 55.0))
MODEL = SMALL
SERVE = (sys.executable, "-m", "mindcv_poolformer.serving")
MLSERVER = (str(Path(sys.executable).parent / "mlserver"), "start")


class Service:
    """A server at work on free ports of the loopback interface.

    Args:
        bundle: what is served.
        folder: where it runs, and writes `server.log`.
        flags: of the command.
        command: to serve with.
        variables: of its environment.
    """

    def __init__(
        self,
        bundle: Path,
        folder: Path,
        *flags: str,
        command: tuple[str, ...] = SERVE,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        http, grpc, metrics = (str(free_port()) for _ in range(3))
        given = {
            "MLSERVER_HTTP_PORT": http,
            "MLSERVER_GRPC_PORT": grpc,
            "MLSERVER_METRICS_PORT": metrics,
            **(variables or {}),
        }
        self.log = folder / "server.log"
        self.metrics = f"http://127.0.0.1:{metrics}/metrics"
        self.root = f"http://127.0.0.1:{http}"
        words = ["env", *(f"{name}={value}" for name, value in given.items())]
        with self.log.open("w") as log:
            self.running = Running(
                folder, [*words, *command, str(bundle), *flags], stdout=log, stderr=log
            )
        self.process = psutil.Process(self.running.process.pid)
        self.http = tritonclient.http.InferenceServerClient(
            f"127.0.0.1:{http}", concurrency=8, network_timeout=120, connection_timeout=120
        )
        self.address = f"127.0.0.1:{grpc}"
        self.grpc = tritonclient.grpc.InferenceServerClient(self.address)

    def wait(self, within: float = 120) -> list[bool]:
        """Wait until the server says it is ready; give what it said, each change of it."""
        said: list[bool] = []
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            assert self.running.process.poll() is None, self.log.read_text()[-3000:]
            try:
                ready = self.http.is_server_ready()
            except (OSError, InferenceServerException):
                ready = None
            if ready is not None and said[-1:] != [ready]:
                said.append(ready)
            if ready:
                return said
            time.sleep(0.05)
        raise TimeoutError(self.log.read_text()[-3000:])

    def end(self) -> int:
        """Ask the server to stop, and give its exit code."""
        self.running.process.terminate()
        return self.running.finish(90).code

    def resident(self) -> float:
        """Resident memory in MB."""
        return self.process.memory_info().rss / 1e6


@contextlib.contextmanager
def at_work(bundle: Path, folder: Path, *flags: str, **more: Any) -> Iterator[Service]:
    """A server of a bundle that is ready, and ends well once the block has."""
    one = Service(bundle, folder, *flags, **more)
    try:
        one.wait()
        yield one
        assert one.end() == 0, one.log.read_text()[-3000:]
    finally:
        one.running.kill()


def over_grpc(name: str, array: np.ndarray, datatype: str) -> Any:
    tensor = tritonclient.grpc.InferInput(name, list(array.shape), datatype)
    return tensor.set_data_from_numpy(array)


def over_http(name: str, array: np.ndarray, datatype: str) -> Any:
    tensor = tritonclient.http.InferInput(name, list(array.shape), datatype)
    return tensor.set_data_from_numpy(array, binary_data=False)
