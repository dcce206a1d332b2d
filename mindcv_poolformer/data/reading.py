"""Looking at many files in processes of their own, and telling of those that cannot be read."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from multiprocessing import active_children, get_context
from typing import TypeVar

from tqdm import tqdm

from ..runtime.errors import UserError
from .preprocess import silence_pillow

ITEMS_AT_ONCE = 16  # of one worker, between two reports
Item = TypeVar("Item")
Seen = TypeVar("Seen")


def looked_at(
    look: Callable[[Item], Seen], items: Sequence[Item], workers: int, unit: str
) -> Generator[tuple[Item, Seen], None, None]:
    """Give each item with what a look at it gives, in their order, under a bar on a terminal.

    Closing it ends the workers, whatever they are at.

    Args:
        look: at one item; runs in the workers.
        items: to look at.
        workers: processes, at most.
        unit: what an item is called at the bar.

    Raises:
        UserError: a worker has died.
    """
    with (
        closing(_seen(look, items, min(workers, len(items)))) as seen,
        tqdm(desc="checking", total=len(items), unit=unit, disable=not sys.stderr.isatty()) as bar,
    ):
        for pair in zip(items, seen, strict=True):
            yield pair
            bar.update()


def tell(path: str, reason: str) -> None:
    """Print that a file cannot be read, above the bar."""
    tqdm.write(f"{path}\t{reason}", file=sys.stdout)
    sys.stdout.flush()


def _seen(
    look: Callable[[Item], Seen], items: Sequence[Item], workers: int
) -> Generator[Seen, None, None]:
    if not items:
        return
    context = get_context("fork")  # the others would import MindSpore in every worker
    pool = ProcessPoolExecutor(workers, context, _start_worker)
    try:
        yield from pool.map(look, items, chunksize=ITEMS_AT_ONCE)
    except BrokenProcessPool:
        raise UserError(
            f"workers: found one of {workers} killed, expected them to live: "
            "with too little memory give a smaller --workers"
        ) from None
    finally:
        for process in active_children():
            process.kill()
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends its workers
    silence_pillow()
