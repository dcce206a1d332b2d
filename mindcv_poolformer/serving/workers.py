"""Worker processes that end unasked: the server replaces them, or it ends. It never hangs.

MLServer replaces a worker too. But it learns of one alone where several end at once, and has their
requests wait for ever; all wait where one ends in the middle of an answer; and at the server's own
end it waits for dead workers to fetch what was sent to them.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
from typing import Any, NoReturn

from mlserver.parallel import InferencePoolRegistry
from mlserver.parallel.pool import InferencePool
from mlserver.parallel.worker import Worker

LOCK_SECONDS = 10  # an answer passes the pipe in far less


class WorkerWatch:
    """Sees to every worker that ends, in the place of MLServer's own handler of SIGCHLD.

    One that cannot be replaced ends the process with exit code 1. To be made in a running loop.

    Args:
        registry: of the pools of workers.
    """

    def __init__(self, registry: InferencePoolRegistry) -> None:
        self._registry = registry
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loaded = {worker.pid for _, worker in self._workers()}
        registry._on_worker_stop.append(_let_go)  # its pools hold the same list
        self._handler = self._begin
        signal.signal(signal.SIGCHLD, self._handler)  # the registry gives it back when it closes

    @property
    def any_answers(self) -> bool:
        """Whether a worker is left that does not still load the network."""
        return any(
            worker.exitcode is None and worker.pid in self._loaded for _, worker in self._workers()
        )

    def _workers(self) -> list[tuple[InferencePool, Worker]]:
        pools = (self._registry._default_pool, *self._registry._pools.values())
        return [(pool, worker) for pool in pools for worker in pool._workers.values()]

    def _begin(self, *_: Any) -> None:
        if self._loop.is_closed():  # workers that end with a server which could not start
            return
        task = self._loop.create_task(self._replace_ended())
        self._tasks.add(task)
        task.add_done_callback(self._finish)

    async def _replace_ended(self) -> None:
        """Signals are not counted, so one may tell of many."""
        ended = [(pool, one) for pool, one in self._workers() if one.exitcode is not None]
        await asyncio.gather(*[pool.on_worker_stop(one.pid, one.exitcode) for pool, one in ended])

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and signal.getsignal(signal.SIGCHLD) is self._handler:  # not the end
            _end(f"workers: one has ended and cannot be replaced ({error})")
        if not self._tasks:
            self._loaded = {worker.pid for _, worker in self._workers()}


def end_workers() -> None:
    """End those that are left, for which the interpreter would wait."""
    for child in multiprocessing.active_children():
        child.kill()


async def _let_go(worker: Worker) -> None:
    """End the process if a worker took the lock along that each holds while it answers.

    All answers pass one pipe: none can follow one that is cut off.
    """
    for queue in (worker._requests, worker._model_updates):
        queue.cancel_join_thread()  # nobody will fetch what waits in it
    lock = worker._responses._wlock
    if not await asyncio.to_thread(lock.acquire, timeout=LOCK_SECONDS):
        _end(
            f"worker {worker.pid}: found ended in the middle of an answer, which keeps the others "
            "from answering; start the server again"
        )
    lock.release()


def _end(message: str) -> NoReturn:
    end_workers()
    sys.stdout.flush()
    sys.stderr.write(f"error: {' '.join(message.splitlines())}\n")
    sys.stderr.flush()
    os._exit(1)  # past the threads that wait for answers which will never come
