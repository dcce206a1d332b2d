"""Load on the inference server beside the bare network: throughput and latency.

python -m benchmarks.serving --bundle runs/digits/bundle --json serving.json

Starts a server with batching, one without, and a process that runs the bundle's network in a loop,
and measures them in turn at each concurrency, in rounds of which the medians count, on the loopback
interface. The bare loop decodes nothing, and runs as many images at once as the clients send, up to
the server's largest batch.
Then clients ask at half the most that the server with batching answered, evenly. --soak 10 instead
loads that server for ten minutes and watches errors and memory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from .load import Load, Others, ask_all, ask_at, request

CONCURRENCIES = (1, 2, 4, 8, 16, 32, 64)
PATIENCE_SECONDS = 300  # for a server to get ready
SOAK_CLIENTS = 32
SATURATED = 8  # clients
FEW_SHARE, SATURATED_SHARE = 0.85, 0.9  # of the bare loop, at least
HALF_LOAD_P99 = 2.0  # times the bare latency of a request, at most
BATCHING, BARE = "batching", "bare loop"
QUIET = 0.1  # cores that others may take
ROUNDS = 3  # at each concurrency: a machine's speed drifts


@dataclass
class Server:
    """A server process and where it listens."""

    name: str
    process: subprocess.Popen[bytes]
    address: str

    def wait(self) -> None:
        client = InferenceServerClient(self.address)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name}: ended with {self.process.returncode}")
            with contextlib.suppress(InferenceServerException):
                if client.is_server_ready():
                    return
            time.sleep(0.1)
        raise TimeoutError(f"{self.name}: not ready in {PATIENCE_SECONDS} s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, default=Path("runs/digits/bundle"))
    parser.add_argument("--kind", choices=["encoded", "pixels", "images"], default="encoded")
    parser.add_argument("--images", type=int, default=1, help="in each request")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--concurrency", type=int, nargs="+", default=CONCURRENCIES)
    parser.add_argument("--soak", type=float, default=0.0, help="minutes, instead of the table")
    parser.add_argument("--json", type=Path, help="write the results to this file too")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        loop_bare(arguments.bundle)
        return
    description = json.loads((arguments.bundle / "model.json").read_text())
    message = request(description, arguments.kind, arguments.images)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.soak:
            with serving(arguments.bundle, Path(folder), BATCHING) as server:
                report: Any = asyncio.run(
                    soak(server, message, arguments.images, arguments.soak * 60)
                )
        else:
            loads, half = compare(arguments, message, Path(folder))
            print_table(loads)
            print_targets(loads, half, arguments.images)
            report = {"loads": [asdict(load) for load in loads], "half_load": asdict(half)}
    if arguments.json:
        facts = {"bundle": description["model"], "input": description["input"]["shape"]}
        facts |= {"kind": arguments.kind, "images_per_request": arguments.images}
        arguments.json.write_text(json.dumps({**facts, "results": report}, indent=2) + "\n")


def compare(arguments: argparse.Namespace, message: bytes, folder: Path) -> tuple[list[Load], Load]:
    """Each contender in turn, at each concurrency; last the server with batching at half load."""
    loads = []
    most = json.loads((arguments.bundle / "model-settings.json").read_text())["max_batch_size"]
    with (
        serving(arguments.bundle, folder, BATCHING) as batching,
        serving(arguments.bundle, folder, "one by one", max_batch_size=1) as single,
        bare(arguments.bundle) as loop,
    ):
        images, seconds = arguments.images, arguments.seconds

        def ask(server: Server, clients: int) -> Load:
            asked = ask_all(server.name, server.address, message, images, clients, seconds)
            return asyncio.run(asked)

        def run_bare(clients: int) -> Load:
            watch = Others()
            loop.stdin.write(f"{min(clients * images, most)} {seconds}\n")
            loop.stdin.flush()
            rate = float(loop.stdout.readline())
            return Load(BARE, clients, rate, None, None, 0, watch.cores())

        for clients in arguments.concurrency:
            rounds = [
                (ask(batching, clients), ask(single, clients), run_bare(clients))
                for _ in range(ROUNDS)
            ]
            loads += map(middle, zip(*rounds, strict=True))
        full = max(one.images_per_second for one in loads if one.contender == BATCHING)
        rate = full / images / 2
        asked = ask_at(BATCHING, batching.address, message, images, rate, ROUNDS * seconds)
        return loads, asyncio.run(asked)


def middle(rounds: Sequence[Load]) -> Load:
    """The medians of a contender's rounds; the errors of all, and the most that others took."""
    first = rounds[0]
    latencies = [(one.p50_ms, one.p99_ms) for one in rounds if one.p50_ms is not None]
    p50, p99 = np.median(latencies, axis=0).tolist() if latencies else (None, None)
    return replace(
        first,
        images_per_second=float(np.median([one.images_per_second for one in rounds])),
        p50_ms=p50,
        p99_ms=p99,
        errors=sum(one.errors for one in rounds),
        others=max(one.others for one in rounds),
    )


@contextlib.contextmanager
def serving(bundle: Path, folder: Path, name: str, **extra: Any) -> Iterator[Server]:
    """A server of the bundle, with `parameters.extra` of its own."""
    settings = json.loads((bundle / "model-settings.json").read_text())
    settings["parameters"] = {"uri": str(bundle.resolve()), "extra": extra}
    place = folder / name.replace(" ", "_")
    place.mkdir()
    (place / "model-settings.json").write_text(json.dumps(settings))
    ports = free_ports(3)
    names = ("MLSERVER_GRPC_PORT", "MLSERVER_HTTP_PORT", "MLSERVER_METRICS_PORT")
    environment = {**os.environ, **dict(zip(names, map(str, ports), strict=True))}
    with (folder / f"{place.name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mindcv_poolformer.serving", str(place)],
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        server = Server(name, process, f"127.0.0.1:{ports[0]}")
        server.wait()
        yield server
        process.terminate()
        if process.wait(60):
            raise RuntimeError(f"{name}: ended with {process.returncode}")
    finally:
        process.kill()


@contextlib.contextmanager
def bare(bundle: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that runs the network at a batch size for so many seconds, and says images/s."""
    command = [sys.executable, "-m", "benchmarks.serving", "--bare", "--bundle", str(bundle)]
    process = subprocess.Popen(
        command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()


def loop_bare(folder: Path) -> None:
    """The network at the batch size and for the seconds that each line tells, nothing else."""
    from mindcv_poolformer.export.bundle import load_bundle
    from mindcv_poolformer.export.description import read_description
    from mindcv_poolformer.export.runtimes import chosen, set_up

    runtime = chosen(read_description(folder), "auto", "CPU")
    set_up(runtime, "CPU")
    bundle = load_bundle(folder, runtime=runtime)
    edge = bundle.transform.image_size
    print("ready", flush=True)
    for line in sys.stdin:
        size, seconds = int(line.split()[0]), float(line.split()[1])
        images = np.random.default_rng(0).normal(size=(size, bundle.channels, edge, edge))
        images = bundle.to_input(images.astype(np.float32))
        bundle.outputs(images, size)  # MindSpore compiles
        started, runs = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            bundle.outputs(images, size)
            runs += 1
        print(runs * size / (time.perf_counter() - started), flush=True)


async def soak(server: Server, message: bytes, images: int, seconds: float) -> dict[str, Any]:
    """Load a server for long, in steps of ten seconds; print what it answers and holds."""
    process = psutil.Process(server.process.pid)
    steps = []
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        load = await ask_all("soak", server.address, message, images, SOAK_CLIENTS, 10.0)
        steps.append({**asdict(load), "resident_mb": process.memory_info().rss / 1e6})
        print(
            f"{load.images_per_second:8.1f} images/s  p99 {load.p99_ms:7.1f} ms  "
            f"{load.errors} errors  {steps[-1]['resident_mb']:.0f} MB",
            flush=True,
        )
    return {
        "minutes": seconds / 60,
        "errors": sum(step["errors"] for step in steps),
        "resident_mb_first_and_last": [steps[0]["resident_mb"], steps[-1]["resident_mb"]],
        "steps": steps,
    }


def print_table(loads: list[Load]) -> None:
    """Each server beside the bare loop of its own round."""
    loops = {one.concurrency: one for one in loads if one.contender == BARE}
    head = "clients | server | images/s | bare loop, so many | share | p50 | p99 | errors | others"
    print(f"| {head} |")
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for one in loads:
        if one.contender == BARE:
            continue
        loop = loops[one.concurrency]
        share = one.images_per_second / loop.images_per_second
        print(
            f"| {one.concurrency} | {one.contender} | {one.images_per_second:.1f} "
            f"| {loop.images_per_second:.1f} | {share:.0%} | {one.p50_ms:.1f} ms "
            f"| {one.p99_ms:.1f} ms | {one.errors} | {max(one.others, loop.others):.2f} |"
        )
    if max(one.others for one in loads) > QUIET:
        print(f"other processes took more than {QUIET} cores now and then: not a quiet machine")


def print_targets(loads: list[Load], half: Load, images: int) -> None:
    """The server with batching; the worst round counts."""
    loops = {one.concurrency: one.images_per_second for one in loads if one.contender == BARE}
    shares = {
        one.concurrency: one.images_per_second / loops[one.concurrency]
        for one in loads
        if one.contender == BATCHING
    }
    print("\n| batching | target | measured | |")
    print("| --- | ---: | ---: | --- |")
    few = [share for clients, share in shares.items() if clients < SATURATED]
    many = [share for clients, share in shares.items() if clients >= SATURATED]
    for what, found, least in (
        (f"fewer than {SATURATED} clients, share of the bare loop", few, FEW_SHARE),
        (f"{SATURATED} clients and more, share of the bare loop", many, SATURATED_SHARE),
    ):
        if found:
            verdict = "pass" if min(found) >= least else "short"
            low, high = (math.floor(share * 100 + 1e-9) for share in (min(found), max(found)))
            print(f"| {what} | {least:.0%} | {low}% to {high}% | {verdict} |")
    if 1 in loops and half.p99_ms is not None:
        ratio = half.p99_ms / 1e3 * loops[1] / images
        verdict = "pass" if ratio <= HALF_LOAD_P99 and not half.errors else "short"
        print(
            f"| p99 at half load ({half.images_per_second:.1f} images/s), of the bare latency "
            f"| {HALF_LOAD_P99:g}x | {ratio:.2f}x ({half.p99_ms:.0f} ms) | {verdict} |"
        )


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


if __name__ == "__main__":
    main()
