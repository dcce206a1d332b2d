"""Start, swap, failure and end of a server, with requests under way."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import onnxruntime
import psutil
import pytest
from PIL import Image

pytest.importorskip("tritonclient", reason="needs the extra serving")

# isort: split
import tritonclient.grpc  # noqa: E402
from service import MLSERVER, MODEL, Service, over_grpc, over_http  # noqa: E402
from tritonclient.utils import InferenceServerException  # noqa: E402

from mindcv_poolformer.runtime.ports import free_port  # noqa: E402

IMAGES = np.random.default_rng(3).normal(size=(2, 3, 32, 32)).astype(np.float32)


def version(served: Path, folder: Path, number: str, name: str, **extra: Any) -> None:
    """Put a bundle into a repository of versions."""
    shutil.copytree(served, folder / name)
    path = folder / name / "model-settings.json"
    settings = json.loads(path.read_text())
    settings["parameters"] |= {"version": number, "extra": extra}
    path.write_text(json.dumps(settings))


def ask(service: Service) -> np.ndarray:
    answer = service.grpc.infer(MODEL, [over_grpc("images", IMAGES, "FP32")], client_timeout=100)
    return answer.as_numpy("probabilities")


@contextlib.contextmanager
def serving(*arguments: Any, **more: Any) -> Iterator[Service]:
    one = Service(*arguments, **more)
    try:
        yield one
    finally:
        one.running.kill()


@dataclass
class Stream:
    """Requests without a break, each on its own connection's heels."""

    service: Service
    answers: list[tuple[str, np.ndarray]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        client = tritonclient.grpc.InferenceServerClient(self.service.address)
        deadline = time.monotonic() + 150
        while not self.done.is_set() and time.monotonic() < deadline:
            try:
                tensors = [over_grpc("images", IMAGES, "FP32")]
                answer = client.infer(MODEL, tensors, client_timeout=100)
            except InferenceServerException as error:
                self.errors.append(str(error))
            else:
                number = answer.get_response().model_version
                self.answers.append((number, answer.as_numpy("probabilities")))


def test_never_ready_before_it_answers(served: Path, tmp_path: Path) -> None:
    with serving(served, tmp_path) as service:
        assert service.wait()[-2:] == [False, True] or service.wait() == [True]
        assert ask(service).shape == (2, 10)
        listening = [one for one in service.process.net_connections() if one.status == "LISTEN"]
        assert {one.laddr.ip.removeprefix("::ffff:") for one in listening} == {"127.0.0.1"}
        loaded = Path(f"/proc/{service.process.pid}/maps").read_text()
        assert "onnxruntime" in loaded and "mindspore" not in loaded
        service.http.unload_model(MODEL)  # all of them, which is no failure
        assert service.end() == 0


@pytest.mark.long
def test_mlserver_start(served: Path, tmp_path: Path) -> None:
    """MLServer's own command serves a bundle as it is, here in MindSpore."""
    version(served, tmp_path, "1", "bundle", runtime="mindspore", batch_sizes=[2])
    local = {"MLSERVER_HOST": "127.0.0.1", "MLSERVER_PARALLEL_WORKERS": "0"}
    with serving(tmp_path / "bundle", tmp_path, command=MLSERVER, variables=local) as service:
        service.wait()
        told = service.http.get_model_metadata(MODEL)
        assert (told["platform"], told["versions"]) == (
            "mindspore_fp32",
            [f"mindspore/{ms.__version__}"],
        )
        session = onnxruntime.InferenceSession(served / "model.onnx")
        (logits,) = session.run(None, {"images": IMAGES})
        powers = np.exp(logits)
        expected = powers / powers.sum(axis=1, keepdims=True)
        assert ask(service) == pytest.approx(expected, abs=1e-5)
        assert service.end() == 0


def test_a_full_queue_is_told(served: Path, tmp_path: Path) -> None:
    """What may come back later, apart from what never fits."""
    version(served, tmp_path, "1", "bundle", max_queue=2)
    with serving(tmp_path / "bundle", tmp_path) as service:
        service.wait()
        three = np.concatenate([IMAGES, IMAGES[:1]])
        for client, tensor, status in (
            (service.grpc, over_grpc, "StatusCode.INVALID_ARGUMENT"),
            (service.http, over_http, "413"),
        ):
            with pytest.raises(InferenceServerException) as caught:
                client.infer(MODEL, [tensor("images", three, "FP32")])
            assert caught.value.status() == status
            assert "images: found 3, expected at most 2" in caught.value.message()
        stream, tensors = Stream(service), [over_http("images", IMAGES, "FP32")]
        deadline = time.monotonic() + 60
        with ThreadPoolExecutor(2) as pool:
            asking = [pool.submit(stream.ask) for _ in range(2)]
            try:
                with pytest.raises(InferenceServerException) as caught:
                    while time.monotonic() < deadline:
                        service.http.infer(MODEL, tensors)
                while not stream.errors and time.monotonic() < deadline:
                    time.sleep(0.01)
            finally:
                stream.done.set()
            for one in asking:
                one.result()
        assert caught.value.status() == "429"
        full = "queue: found 2 images under way and 2 more, expected at most 2"
        assert full in caught.value.message()
        assert all(f"[StatusCode.RESOURCE_EXHAUSTED] {full}" == one for one in stream.errors)
        assert stream.errors


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda folder: (folder / "model.onnx").write_bytes(b"x"), "model.onnx: found"),
        (lambda folder: (folder / "model-settings.json").unlink(), "no model-settings.json"),
        (
            lambda folder: (folder / "model-settings.json").write_text(
                (folder / "model-settings.json")
                .read_text()
                .replace('"uri": ".",', '"uri": ".", "extra": {"max_batchsize": 4},')
            ),
            "parameters.extra: found 'max_batchsize', expected one of max_batch_size",
        ),
    ],
)
def test_what_cannot_be_served_ends_with_a_reason(
    served: Path, tmp_path: Path, harm: Any, reason: str
) -> None:
    shutil.copytree(served, tmp_path / "bundle")
    harm(tmp_path / "bundle")
    with serving(tmp_path / "bundle", tmp_path) as service:
        assert service.running.finish(60).code == 1
        assert reason in service.log.read_text()


def test_one_of_two_that_cannot_be_loaded_ends_it(served: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    version(served, repository, "1", "one")
    version(served, repository, "2", "two", max_pixels=0)
    with serving(repository, tmp_path) as service:
        assert service.running.finish(60).code == 1
    said = service.log.read_text()
    assert said.splitlines()[-1] == (
        f"error: {repository}: found a bundle that cannot be loaded "
        "(max_pixels: found 0, expected a whole number >= 1)"
    )
    assert "Traceback" not in said


@pytest.mark.parametrize("taken", ["http", "grpc", "metrics"])
def test_a_port_that_is_taken_ends_with_a_line(served: Path, tmp_path: Path, taken: str) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as other:
        port = str(other.getsockname()[1])
        variables = {f"MLSERVER_{taken.upper()}_PORT": port, "MLSERVER_PARALLEL_WORKERS": "1"}
        with serving(served, tmp_path, variables=variables) as service:
            assert service.running.finish(60).code == 1
    assert service.log.read_text().splitlines()[-1] == (
        f"error: {taken}_port: cannot listen on 127.0.0.1:{port} (Address already in use), "
        f"expected a free port: MLSERVER_{taken.upper()}_PORT=..."
    )


@pytest.mark.long
@pytest.mark.parametrize(("sign", "workers"), [(signal.SIGTERM, "1"), (signal.SIGINT, "0")])
def test_requests_under_way_are_answered_before_the_end(
    served: Path, tmp_path: Path, sign: int, workers: str
) -> None:
    variables = {"MLSERVER_PARALLEL_WORKERS": workers}
    with serving(served, tmp_path, variables=variables) as service:
        service.wait()
        content = io.BytesIO()
        Image.linear_gradient("L").resize((1500, 1500)).save(content, "PNG")
        files = [content.getvalue()] * 12  # whose decoding takes longer than all need to arrive
        tensors = [over_grpc("encoded", np.array(files[:1], object), "BYTES")]
        expected = service.grpc.infer(MODEL, tensors).as_numpy("probabilities")
        tensors = [over_grpc("encoded", np.array(files, object), "BYTES")]
        with ThreadPoolExecutor(6) as pool:
            asked = [pool.submit(service.grpc.infer, MODEL, tensors) for _ in range(5)]
            wait(asked, return_when=FIRST_COMPLETED)
            assert not all(one.done() for one in asked)
            service.running.process.send_signal(sign)
            for one in asked:
                found = one.result(60).as_numpy("probabilities")
                assert found == pytest.approx(np.repeat(expected, 12, axis=0), abs=1e-5)
        assert service.running.finish(60).code in (0, -sign, 130)


@pytest.mark.long
def test_a_new_version_takes_over_without_a_lost_request(served: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(served, repository / "one")  # as it is exported
    with serving(repository, tmp_path) as service:
        service.wait()
        expected = ask(service)
        stream = Stream(service)
        with ThreadPoolExecutor(2) as pool:
            asking = [pool.submit(stream.ask) for _ in range(2)]
            try:
                time.sleep(0.5)
                version(served, repository, "2", "two", max_batch_size=2, runtime="mindspore")
                service.http.load_model(MODEL)  # next to version 1
                shutil.rmtree(repository / "one")
                service.http.load_model(MODEL)  # version 1 has gone
                time.sleep(0.5)
            finally:
                stream.done.set()
            for one in asking:
                one.result(120)
        assert stream.errors == []
        numbers = [number for number, _ in stream.answers]
        assert numbers[0] == "1" and numbers[-1] == "2"
        for _, found in stream.answers:
            assert found == pytest.approx(expected, abs=1e-5)
        assert service.grpc.is_model_ready(MODEL, "2")
        with pytest.raises(InferenceServerException, match="NOT_FOUND"):
            service.grpc.is_model_ready(MODEL, "1")


@pytest.mark.long
def test_a_damaged_new_version_leaves_the_old_one(served: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    version(served, repository, "1", "one", max_batch_size=2)
    with serving(repository, tmp_path) as service:
        service.wait()
        expected = ask(service)
        version(served, repository, "2", "two", max_batch_size=2)
        (repository / "two" / "model.onnx").write_bytes(b"x")
        with pytest.raises(InferenceServerException) as caught:
            service.http.load_model(MODEL)
        assert caught.value.status() == "422"
        assert "model.onnx: found" in caught.value.message()
        assert ask(service) == pytest.approx(expected, abs=1e-6)


def workers_of(service: Service) -> list[psutil.Process]:
    return [one for one in service.process.children() if "spawn_main" in str(one.cmdline())]


def wait_until_idle(process: psutil.Process) -> None:
    """Wait for a second in which no thread was seen to run, or to wait for a core to run on."""
    seen = 0
    while seen < 20:
        time.sleep(0.05)
        seen = 0 if "R" in states(process) else seen + 1  # an idle server ticks


def states(process: psutil.Process) -> set[str]:
    """Those of the threads of a process, as proc(5) has them."""
    found = set()
    for file in Path(f"/proc/{process.pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):  # a thread that has ended
            found.add(file.read_text().rpartition(")")[2].split()[0])
    return found


@pytest.mark.long
def test_killed_workers_come_back(served: Path, tmp_path: Path) -> None:
    """All at once, of which one signal tells, and with more waiting for each than a pipe holds."""
    version(served, tmp_path, "1", "bundle", batch_sizes=[8])
    workers = {"MLSERVER_PARALLEL_WORKERS": "2"}
    with serving(tmp_path / "bundle", tmp_path, variables=workers) as service:
        service.wait()
        expected = ask(service)
        killed = workers_of(service)
        assert len(killed) == 2
        for worker in killed:
            wait_until_idle(worker)  # it lets go of the answers' lock after the answer has gone
            worker.suspend()
        tensors = [over_grpc("images", np.repeat(IMAGES, 20, axis=0), "FP32")]
        with ThreadPoolExecutor(4) as pool:
            asked = [
                pool.submit(service.grpc.infer, MODEL, tensors, client_timeout=60) for _ in range(4)
            ]
            wait_until_idle(service.process)  # it has handed them on
            service.process.suspend()
            for worker in killed:
                worker.kill()
            service.process.resume()
            for one in asked:
                with pytest.raises(InferenceServerException, match="stopped unexpectedly"):
                    one.result()  # nobody waits for ever
        assert not service.http.is_server_ready() and not service.grpc.is_server_ready()
        assert not service.http.is_model_ready(MODEL) and not service.grpc.is_model_ready(MODEL)
        with pytest.raises(InferenceServerException, match="UNAVAILABLE.*workers: found none"):
            ask(service)
        with pytest.raises(InferenceServerException, match="503.*workers: found none"):
            service.http.infer(MODEL, [over_http("images", IMAGES, "FP32")])
        service.wait()
        assert len(workers_of(service)) == 2
        for _ in range(4):
            assert ask(service) == pytest.approx(expected, abs=1e-5)
        assert service.end() == 0


@pytest.mark.long
def test_a_worker_killed_amid_its_answer_ends_the_server(served: Path, tmp_path: Path) -> None:
    """It takes along the lock of the pipe that all answers pass."""
    version(served, tmp_path, "1", "bundle", max_images=400, max_queue=400, batch_sizes=[8])
    workers = {"MLSERVER_PARALLEL_WORKERS": "1"}
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "PNG")
    tensors = [over_grpc("encoded", np.array([content.getvalue()] * 400, object), "BYTES")]
    names = ("logits", "probabilities", "labels", "scores")
    outputs = [tritonclient.grpc.InferRequestedOutput(name) for name in names]
    with serving(tmp_path / "bundle", tmp_path, variables=workers) as service:
        service.wait()
        (worker,) = workers_of(service)
        worker.suspend()
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(
                service.grpc.infer, MODEL, tensors, outputs=outputs, client_timeout=90
            )
            wait_until_idle(service.process)  # it has handed it on
            service.process.suspend()
            worker.resume()
            wait_until_idle(worker)  # its answer is stuck: it is more than a pipe holds
            worker.kill()
            while worker.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.1)
            service.process.resume()
            with pytest.raises(InferenceServerException):
                asked.result()
        assert service.running.finish(60).code == 1
        assert "; start the server again\n" in service.log.read_text()
