"""Requests that wait for the device, run together, and get their own rows back."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from ..runtime.counted import counted
from ..runtime.device_thread import threads_for


class BusyError(Exception):
    """More images are under way than may be: come back later."""


@dataclass(frozen=True)
class SideBySide:
    """Runs of one core each, for when there are requests for all cores.

    None waits for another, as the cores of one run do at the end of each operator: together they
    answer more in a second.

    Args:
        run: as of :class:`Batcher`, on one core.
        size: images in one run; a request of more has all cores.
        count: runs at once, more than one.
    """

    run: Callable[[np.ndarray], np.ndarray]
    size: int
    count: int


@dataclass(frozen=True, eq=False)
class _Waiting:
    images: np.ndarray
    answer: Future[np.ndarray] = field(default_factory=Future)


class Batcher:
    """Runs what waits together, up to a number of images; the rest waits for the next run.

    After a run of one request the next goes at once; after a run of several, the first to wait
    does so until as many are there, or for ``seconds``. With ``side_by_side``, where requests that
    wait and its runs under way are as many as it may have, each run takes its share of what waits.

    Args:
        run: from (N, ...) images to N rows; called in the threads of :func:`threads_for`.
        size: images in one run; a request of more has a run of its own.
        seconds: the longest that a request waits for company.
        most: images under way at once, from :meth:`place` on.
        side_by_side: what runs instead where enough requests wait.
    """

    def __init__(
        self,
        run: Callable[[np.ndarray], np.ndarray],
        size: int,
        seconds: float,
        most: int,
        side_by_side: SideBySide | None = None,
    ) -> None:
        self._run, self._size, self._seconds, self._most = run, size, seconds, most
        self._beside = side_by_side
        self._at_once = side_by_side.count if side_by_side else 1
        self._threads = threads_for(self._at_once)
        self._changed = threading.Condition()
        self._queue: deque[_Waiting] = deque()
        self._steps = 0  # on their way through the threads
        self._running = 0  # of these
        self._has_all_cores = False  # the one that is running
        self._company = 1  # requests in the last run
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextlib.contextmanager
    def place(self, count: int) -> Iterator[None]:
        """Hold a place for ``count`` images until their request is answered.

        Raises:
            BusyError: there is none.
        """
        if self._under_way + count > self._most:
            raise BusyError(
                f"queue: found {counted(self._under_way, 'image')} under way and {count} more, "
                f"expected at most {self._most}"
            )
        self._under_way += count
        self._idle.clear()
        try:
            yield
        finally:
            self._under_way -= count
            if not self._under_way:
                self._idle.set()

    async def drained(self) -> None:
        """Return once no place is held."""
        await self._idle.wait()

    async def answer(self, images: np.ndarray) -> np.ndarray:
        """Wait for the rows of ``images``."""
        waiting = _Waiting(images)
        with self._changed:
            self._queue.append(waiting)
            self._changed.notify_all()  # several steps may wait
            self._start()
        return await asyncio.wrap_future(waiting.answer)

    def _start(self) -> None:
        """Have a step for each request that waits, as far as there may be; in ``_changed``."""
        free = 0 if self._has_all_cores else self._at_once - self._steps
        for _ in range(min(len(self._queue), free)):
            self._threads.submit(self._step)
            self._steps += 1

    def _step(self) -> None:
        """One run, if there is any to do. Other models' steps come in between."""
        taken = self._take()
        if taken is None:
            return
        try:
            _answer(*taken)
        finally:  # a step that stayed counted would be missing for good
            with self._changed:
                self._steps, self._running = self._steps - 1, self._running - 1
                self._has_all_cores = False
                self._start()

    def _take(self) -> tuple[list[_Waiting], Callable[[np.ndarray], np.ndarray]] | None:
        """What runs now, and by what; None where that is nothing, and this step is over.

        Another step has taken the requests then, or the end of the run under way starts others.
        """
        deadline = time.monotonic() + self._seconds
        with self._changed:
            while self._is_worth_waiting() and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            beside, requests = self._beside, len(self._queue)
            run, size = self._run, self._size
            if not requests or self._has_all_cores:
                self._steps -= 1
                return None
            if (
                beside
                and requests + self._running >= beside.count
                and len(self._queue[0].images) <= beside.size
            ):
                run, size, requests = beside.run, beside.size, -(-requests // beside.count)
            elif self._running:
                self._steps -= 1
                return None
            else:
                self._has_all_cores = True
            self._running += 1
            taken = [self._queue.popleft()]
            room = size - len(taken[0].images)
            while len(taken) < requests and len(self._queue[0].images) <= room:
                taken.append(self._queue.popleft())
                room -= len(taken[-1].images)
            batch = [one for one in taken if one.answer.set_running_or_notify_cancel()]
            self._company = len(batch) or self._company
            return batch, run

    def _is_worth_waiting(self) -> bool:
        images = sum(len(one.images) for one in self._queue)
        return 0 < len(self._queue) < self._company and images < self._size


def _answer(batch: Sequence[_Waiting], run: Callable[[np.ndarray], np.ndarray]) -> None:
    if not batch:  # all have left
        return
    try:
        images = np.concatenate([one.images for one in batch])
        rows = run(images)
        if len(rows) != len(images):
            raise ValueError(f"rows: found {len(rows)}, expected {len(images)}")
        answers, start = [], 0
        for one in batch:
            answers.append(rows[start : start + len(one.images)])
            start += len(one.images)
    except Exception as error:  # whatever it is belongs to those who asked
        for one in batch:
            one.answer.set_exception(error)
        return
    for one, answer in zip(batch, answers, strict=True):
        one.answer.set_result(answer)


def quickest(seconds: Mapping[int, float], up_to: int) -> list[tuple[int, ...]]:
    """For each number of images, the sizes of the runs that take it in the least time.

    Args:
        seconds: of a run, by its size. A run may be filled up.
        up_to: the largest number.

    Returns:
        for 0, 1, ... up_to images.
    """
    best: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for count in range(1, up_to + 1):
        options = [(size, best[max(0, count - size)]) for size in seconds]
        best.append(min((seconds[size] + rest[0], (size, *rest[1])) for size, rest in options))
    return [tuple(sorted(sizes, reverse=True)) for _, sizes in best]


def sizes_up_to(largest: int) -> Collection[int]:
    """1, 2, 4, ... and ``largest``."""
    return sorted({largest, *(1 << power for power in range(largest.bit_length()))})
