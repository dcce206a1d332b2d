"""Clients that load an inference server, and what they see."""

from __future__ import annotations

import asyncio
import io
import time
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
    """Load a server; a first second is not counted. ``images`` are in each request."""
    latencies: list[float] = []
    errors = 0
    watch = Others()
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(INFER)
        opens = time.perf_counter() + 1
        closes = opens + seconds

        async def client() -> None:
            nonlocal errors
            while (started := time.perf_counter()) < closes:
                try:
                    await call(message, timeout=60)
                except grpc.RpcError:
                    errors += 1
                    await asyncio.sleep(0.01)
                    continue
                ended = time.perf_counter()
                if opens <= ended < closes:
                    latencies.append((ended - started) * 1e3)

        await asyncio.gather(*(client() for _ in range(concurrency)))
    p50, p99 = np.percentile(latencies, [50, 99]) if latencies else (float("nan"),) * 2
    rate = len(latencies) * images / seconds
    return Load(name, concurrency, rate, float(p50), float(p99), errors, watch.cores())
