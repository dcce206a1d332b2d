"""Read every image of a data set as training does, and tell which cannot be read.

python -m mindcv_poolformer.data check data/imagenet
"""

from __future__ import annotations

import argparse
import io
import signal
import sys
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from multiprocessing import active_children, cpu_count, get_context
from pathlib import Path

from tqdm import tqdm

from ..runtime.arguments import OneLineParser, at_least_one
from ..runtime.errors import UserError, run
from .corrupt import why_unreadable
from .folder import files_below
from .preprocess import silence_pillow

IMAGES_AT_ONCE = 16  # of one worker, between two reports


def parse_arguments() -> argparse.Namespace:
    """The command, its folder and its options."""
    parser = OneLineParser(
        prog="python -m mindcv_poolformer.data", description="Look after folders of images."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "check", help="read every image as training does, and list those that cannot be read"
    )
    command.add_argument("folder", type=Path, metavar="DIR", help="folder with images anywhere")
    command.add_argument(
        "--workers",
        type=at_least_one,
        metavar="N",
        default=cpu_count(),
        help="processes that read images, by default one per core",
    )
    command.set_defaults(command=check)
    return parser.parse_args()


def check(folder: Path, workers: int) -> int:
    """Print path and reason of each corrupt image below a folder, and a summary.

    Returns:
        The number of corrupt images.

    Raises:
        UserError: the folder is missing, cannot be read or holds no image; a worker has died.
    """
    if not folder.is_dir():
        there = "a file" if folder.exists() else "no such folder"
        raise UserError(f"{folder}: found {there}, expected a folder of images")
    paths, left_out = files_below(folder)
    corrupt = 0
    with (
        closing(reasons(paths, min(workers, len(paths)))) as found,
        tqdm(desc="checking", total=len(paths), unit="img", disable=not sys.stderr.isatty()) as bar,
    ):
        for path, reason in zip(paths, found, strict=True):
            if reason:
                corrupt += 1
                tqdm.write(f"{path}\t{reason}", file=sys.stdout)
                sys.stdout.flush()
            bar.update()
    ignored = f", {left_out} ignored" if str(left_out) else ""
    print(f"{folder}: {corrupt:,} of {len(paths):,} images cannot be read{ignored}")
    return corrupt


def reasons(paths: Sequence[str], workers: int) -> Generator[str | None]:
    """Give, image by image, why it cannot be read, None if it can.

    Closing it ends the workers, whatever they are at.

    Raises:
        UserError: a worker has died.
    """
    context = get_context("fork")  # the others would import MindSpore in every worker
    pool = ProcessPoolExecutor(workers, context, _start_worker)
    try:
        yield from pool.map(why_unreadable, paths, chunksize=IMAGES_AT_ONCE)
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


def main() -> None:
    """The command line."""
    arguments = parse_arguments()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # file names may hold any bytes
    sys.exit(1 if arguments.command(arguments.folder, arguments.workers) else 0)


if __name__ == "__main__":
    run(main)
