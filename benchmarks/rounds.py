"""Contenders as processes that stand still while it is not their turn.

Each contender has a process of its own, in an environment without anybody's tuning variables.
Between its rounds it is stopped by SIGSTOP, so that the threads that idle libraries leave spinning
take nothing from whoever is measured. One round of each goes before the second of any.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from types import TracebackType

import numpy as np

ROOT = Path(__file__).parents[1]
PATIENCE_SECONDS = 900  # for one answer
ROUNDS_BESIDE = 3  # of each contender, in the sections beside the targets
# Of libraries that compute: what the user's shell, or this project, has set for another program.
TUNING = (
    "OMP_ GOMP_ KMP_ MKL_ OPENBLAS_ BLIS_ NUMEXPR_ ONEDNN_ DNNL_ MS_ MINDSPORE_ GLOG CUDA_ ASCEND_ "
    "MINDCV_POOLFORMER TORCH PYTORCH ATEN_ MALLOC_ LD_PRELOAD PYTHONPATH"
).split()

Shape = tuple[int, int]  # batch size, image size in pixels


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without the variables that tune a library."""
    return {k: v for k, v in environment.items() if not k.startswith(tuple(TUNING))}


ENVIRONMENT = clean_environment(os.environ)  # as it was when this module was imported


@dataclass(frozen=True)
class Contender:
    """One implementation at one job.

    Args:
        label: what tables call it.
        command: module, job, and its further arguments.
        every: it takes part in each so many rounds; for those too slow for all of them.
        environment: variables of its own.
    """

    label: str
    command: tuple[str, ...]
    every: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Record:
    """What was measured of a contender; the keys of the dictionaries are shapes.

    Args:
        label: of the contender.
        start_seconds: from the start of the process until the network stood.
        first_call_seconds: of compilation and the first call.
        rounds: seconds of each call of each round.
        peak_bytes: the most resident memory by the end of the rounds, start-up included.
    """

    label: str
    start_seconds: float
    first_call_seconds: dict[Shape, float] = field(default_factory=dict)
    rounds: dict[Shape, list[list[float]]] = field(default_factory=dict)
    peak_bytes: dict[Shape, int] = field(default_factory=dict)

    def spread(self, shape: Shape) -> tuple[float, float, float]:
        """Lowest, median and highest images per second of the rounds; their means count."""
        rates = sorted(shape[0] / fmean(calls) for calls in self.rounds[shape])
        return rates[0], median(rates), rates[-1]


class Died(Exception):
    """A contender's process has ended or does not answer; the message says all in a line."""


class Unavailable(Exception):
    """A contender says that it cannot run here; the message says why."""


class Process:
    """A contender's process; stopped, but while it owes an answer."""

    def __init__(
        self, name: str, contender: Contender, environment: Mapping[str, str], folder: Path
    ) -> None:
        self.name, self.contender = name, contender
        self.outputs = folder / f"{name}.npy"
        self.log = folder / f"{name}.log"
        reading, writing = os.pipe()
        module, *arguments = contender.command
        self.started = time.time()
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments]
                + ["--answers", str(writing), "--outputs", str(self.outputs)],
                stdin=subprocess.PIPE,
                bufsize=0,  # what a dead process leaves unread must not wait for close()
                stdout=log,
                stderr=log,
                pass_fds=[writing],
                cwd=folder,  # MindSpore leaves files where it runs
                env={**environment, "PYTHONPATH": str(ROOT), **contender.environment},
                # Its own group, in our session: stopped processes get SIGHUP if we are killed.
                preexec_fn=os.setpgrp,
            )
        os.close(writing)
        self._answers = os.fdopen(reading)

    def send(self, **command: object) -> None:
        """Let the process go on with a command."""
        self._signal(signal.SIGCONT)
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
        except BrokenPipeError:
            pass  # it has died: receive tells

    def receive(self) -> dict[str, object]:
        """Wait for the answer, then stop the process.

        Raises:
            Died: there is no answer.
            Unavailable: the contender cannot run here.
        """
        ready, _, _ = select.select([self._answers], [], [], PATIENCE_SECONDS)
        line = self._answers.readline() if ready else ""
        if not line:
            raise Died(f"{self.contender.label}: {self._end_of_life(bool(ready))}")
        self._signal(signal.SIGSTOP)
        answer = json.loads(line)
        if "unavailable" in answer:
            raise Unavailable(str(answer["unavailable"]))
        return answer

    def _end_of_life(self, ended: bool) -> str:
        code = self._process.wait() if ended else None
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines()]
        lines = [line for line in lines if line]
        raised = [i for i, line in enumerate(lines) if re.match(r"[\w.]+(Error|Exception):", line)]
        # MindSpore's messages go on for pages after the line that matters.
        said = lines[raised[-1] :][:3] if raised else lines[-3:]
        fate = f"exit code {code}" if ended else f"no answer in {PATIENCE_SECONDS} s"
        return f"found {fate}, expected an answer; it said: {' | '.join(said) or 'nothing'}"

    def kill(self) -> None:
        """End the process and its children, in whatever state they are."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._process.stdin.close()
        self._answers.close()

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            pass  # it has died: receive tells


class Contest:
    """Contenders that are measured side by side. As a context it ends their processes.

    Args:
        contenders: by name.
        environment: of each of them, already clean.
        folder: for logs and outputs.

    Attributes:
        records: of those that run, by name.
        failures: why a contender died, by name; what it had measured by then stays.
        unavailable: why a contender cannot run on this machine, by name.
    """

    def __init__(
        self, contenders: Mapping[str, Contender], environment: Mapping[str, str], folder: Path
    ) -> None:
        self.contenders, self.environment, self.folder = contenders, environment, folder
        self.records: dict[str, Record] = {}
        self.failures: dict[str, str] = {}
        self.unavailable: dict[str, str] = {}
        self._processes: dict[str, Process] = {}

    def __enter__(self) -> Contest:
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(list(self._processes))

    def drop(self, name: str, failure: str) -> None:
        """End a contender that has failed."""
        self.failures[name] = failure
        say(f"error: {failure}")
        self.end([name])

    def end(self, names: Collection[str]) -> None:
        """End the processes of some contenders; their records stay."""
        for name in names:
            if name in self._processes:
                self._processes.pop(name).kill()

    def start(self, shapes: Mapping[str, Shape], at_once: int = 1) -> None:
        """Start contenders and prepare each for a shape.

        Args:
            shapes: by name of the contender.
            at_once: how many start at the same time; above 1 their start-up times mean little.
        """
        names = list(shapes)
        for first in range(0, len(names), at_once):
            group = names[first : first + at_once]
            for name in group:
                say(f"starting {self.contenders[name].label}")
                self._processes[name] = Process(
                    name, self.contenders[name], self.environment, self.folder
                )
            for name, answer in self._answers(group):
                seconds = answer["time"] - self._processes[name].started
                self.records[name] = Record(self.contenders[name].label, seconds)
            self.prepare({name: shapes[name] for name in group}, at_once)

    def prepare(self, shapes: Mapping[str, Shape], at_once: int = 1) -> None:
        """Have contenders compile for another shape, and warm up."""
        names = self._alive(shapes)
        for first in range(0, len(names), at_once):
            group = names[first : first + at_once]
            for name in group:
                self._send(name, "prepare", shapes[name])
            for name, answer in self._answers(group):
                self.records[name].first_call_seconds[shapes[name]] = answer["seconds"]

    def race(self, shapes: Mapping[str, Shape], rounds: int, seconds: float) -> None:
        """Measure in turns; the order goes round.

        Args:
            shapes: by name of the contender, which has been prepared for it.
            rounds: of each contender.
            seconds: of a round, at least one call.
        """
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            names = self._alive(shapes)
            turn = number % max(len(names), 1)
            for name in names[turn:] + names[:turn]:
                if number % self.contenders[name].every == 0:
                    self._race_once(name, shapes[name], seconds)

    def _race_once(self, name: str, shape: Shape, seconds: float) -> None:
        self._send(name, "round", shape, seconds=seconds)
        for _, answer in self._answers([name]):
            record = self.records[name]
            record.rounds.setdefault(shape, []).append(answer["seconds"])
            record.peak_bytes[shape] = answer["peak"]

    def outputs(self, name: str) -> np.ndarray | None:
        """What the warm-up calls of the last shape gave, stacked; None if it does not run."""
        return np.load(self._processes[name].outputs) if name in self._processes else None

    def _alive(self, names: Collection[str]) -> list[str]:
        return [name for name in names if name in self._processes]

    def _send(self, name: str, command: str, shape: Shape, **more: object) -> None:
        self._processes[name].send(do=command, batch=shape[0], size=shape[1], **more)

    def _answers(self, names: Sequence[str]) -> Iterator[tuple[str, dict]]:
        """The answers of those that give one; the others leave the contest."""
        for name in names:
            try:
                yield name, self._processes[name].receive()
            except Died as death:
                self.drop(name, str(death))
            except Unavailable as reason:
                self.unavailable[name] = str(reason)
                say(f"not measured: {reason}")
                self.end([name])


def say(line: str) -> None:
    """A line on standard error: progress, and what goes wrong."""
    print(line, file=sys.stderr, flush=True)
