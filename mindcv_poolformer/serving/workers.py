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
from mlserver.parallel.worker import Worker

LOCK_SECONDS = 10  # an answer passes the pipe in far less


def watch_workers(registry: InferencePoolRegistry) -> None:
    """See to every worker that ends, in the place of MLServer's own handler of SIGCHLD.

    A worker that cannot be replaced ends the process with exit code 1.
    """
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def begin(*_: Any) -> None:
        task = loop.create_task(_replace_ended(registry))
        tasks.add(task)
        task.add_done_callback(finish)

    def finish(task: asyncio.Task[None]) -> None:
        tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and signal.getsignal(signal.SIGCHLD) is begin:  # not at the end
            _end(f"workers: one has ended and cannot be replaced ({error})")

    registry._on_worker_stop.append(_let_go)  # its pools hold the same list
    signal.signal(signal.SIGCHLD, begin)  # the registry gives it back when it closes


def end_workers() -> None:
    """End those that are left, for which the interpreter would wait."""
    for child in multiprocessing.active_children():
        child.kill()


async def _replace_ended(registry: InferencePoolRegistry) -> None:
    """Signals are not counted, so one may tell of many."""
    pools = (registry._default_pool, *registry._pools.values())
    ended = [
        pool.on_worker_stop(worker.pid, worker.exitcode)
        for pool in pools
        for worker in pool._workers.values()
        if worker.exitcode is not None
    ]
    await asyncio.gather(*ended)


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
