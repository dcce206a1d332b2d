"""Clients that load an inference server, and what they see."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import psutil
from PIL import Image
from tritonclient.grpc import service_pb2

INFER = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True)
class Load:
    """What clients saw.

    Args:
        contender: the server, or the bare loop.
        concurrency: clients that each ask again when they are answered.
        images_per_second: answered.
        p50_ms, p99_ms: latency of a request; None for the bare loop.
        errors: requests not answered.
        others: cores that processes outside this measurement kept busy meanwhile.
    """

    contender: str
    concurrency: int
    images_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    errors: int
    others: float


class Others:
    """Watches what the rest of the machine computes, from now on: it spoils a measurement."""

    def __init__(self) -> None:
        self._started, self._all, self._ours = time.perf_counter(), _busy(), _own()

    def cores(self) -> float:
        seconds = time.perf_counter() - self._started
        return max(0.0, (_busy() - self._all) - (_own() - self._ours)) / seconds


def _busy() -> float:
    times = psutil.cpu_times()
    return times.user + times.nice + times.system


def _own() -> float:
    """CPU seconds of this process and those it started."""
    me = psutil.Process()
    times = [one.cpu_times() for one in (me, *me.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def request(description: dict[str, Any], kind: str, images: int) -> bytes:
    """A request of equal images, serialised once: clients and server share the cores."""
    preprocessing = description["preprocessing"]
    edge, channels = preprocessing["image_size"], len(preprocessing["mean"])
    pixels = np.random.default_rng(0).integers(0, 256, (edge, edge, channels), dtype=np.uint8)
    message = service_pb2.ModelInferRequest(model_name=description["model"])
    tensor = message.inputs.add(name=kind)
    if kind == "encoded":
        file = io.BytesIO()
        Image.fromarray(pixels.squeeze()).resize((edge * 5 // 4,) * 2).save(file, "JPEG")
        tensor.datatype, raw = "BYTES", len(file.getvalue()).to_bytes(4, "little") + file.getvalue()
        tensor.shape.extend([images])
    elif kind == "pixels":
        tensor.datatype, raw = "UINT8", pixels.tobytes()
        tensor.shape.extend([images, *pixels.shape])
    else:
        tensor.datatype, raw = "FP32", (pixels.transpose(2, 0, 1) / np.float32(64) - 2).tobytes()
        tensor.shape.extend([images, channels, edge, edge])
    message.raw_input_contents.append(raw * images)
    message.parameters["top_k"].int64_param = 5
    return message.SerializeToString()


async def ask_all(
    name: str, address: str, message: bytes, images: int, concurrency: int, seconds: float
) -> Load:
    """Load a server by clients that each ask again when they are answered.

    A first second is not counted. ``images`` are in each request.
    """
    answers = _Answers(seconds)
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(INFER)

        async def client() -> None:
            while time.perf_counter() < answers.closes:
                if not await answers.ask(call, message):
                    await asyncio.sleep(0.01)

        await asyncio.gather(*(client() for _ in range(concurrency)))
    return answers.load(name, concurrency, images)


async def ask_at(
    name: str, address: str, message: bytes, images: int, rate: float, seconds: float
) -> Load:
    """Ask a server ``rate`` times a second, evenly, answered or not; else as :func:`ask_all`."""
    answers = _Answers(seconds)
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(INFER)
        asked = []
        begins = time.perf_counter()
        for number in range(round(rate * (answers.closes - begins))):
            await asyncio.sleep(begins + number / rate - time.perf_counter())
            asked.append(asyncio.ensure_future(answers.ask(call, message)))
        await asyncio.gather(*asked)
    return answers.load(name, 1, images)


def answers_per_second(ended: Sequence[float], opens: float, closes: float) -> float:
    """From the last answer before a window to the last one in it, which both end a burst.

    A window's own length would count a burst too many or too few: of 16 images in 4 seconds, 10 %.

    Args:
        ended: when the answers came, in rising order; s.
        opens, closes: the window; s.
    """
    start = max((one for one in ended if one < opens), default=opens)
    within = [one for one in ended if opens <= one < closes]
    return len(within) / (within[-1] - start) if within else 0.0


class _Answers:
    """What comes back, counted for so many seconds after a first one."""

    def __init__(self, seconds: float) -> None:
        self._watch = Others()
        self._latencies: list[float] = []
        self._ended: list[float] = []  # times of all answers, the first second's too
        self._errors = 0
        self._opens = time.perf_counter() + 1
        self.closes = self._opens + seconds

    async def ask(self, call: Any, message: bytes) -> bool:
        """Whether the server answers."""
        started = time.perf_counter()
        try:
            await call(message, timeout=60)
        except grpc.RpcError:
            self._errors += 1
            return False
        ended = time.perf_counter()
        self._ended.append(ended)
        if self._opens <= ended < self.closes:
            self._latencies.append((ended - started) * 1e3)
        return True

    def load(self, name: str, concurrency: int, images: int) -> Load:
        found = self._latencies
        p50, p99 = np.percentile(found, [50, 99]) if found else (float("nan"),) * 2
        rate = answers_per_second(self._ended, self._opens, self.closes) * images
        others = self._watch.cores()
        return Load(name, concurrency, rate, float(p50), float(p99), self._errors, others)
