"""Read every image, scene or picture with objects as training does, and tell which cannot be read.

python -m mindcv_poolformer.data check data/imagenet
"""

from __future__ import annotations

from ..runtime import requires_mindspore  # noqa: F401

# isort: split
import argparse
import io
import sys
from contextlib import closing
from multiprocessing import cpu_count
from pathlib import Path

from ..runtime.arguments import OneLineParser, at_least_one
from ..runtime.counted import counted
from ..runtime.errors import UnreadableError, UserError, run
from .detection.check import check_coco, check_file, holds_annotations
from .folder import files_below
from .preprocess import open_image
from .reading import looked_at, tell
from .segmentation.check import check_scenes, holds_scenes


def parse_arguments() -> argparse.Namespace:
    """The command, its folder and its options."""
    parser = OneLineParser(
        prog="python -m mindcv_poolformer.data", description="Look after folders of images."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "check", help="read every image as training does, and list those that cannot be read"
    )
    command.add_argument(
        "folder",
        type=Path,
        metavar="DIR",
        help="folder with images anywhere; of scenes: with images/SPLIT and annotations/SPLIT; of "
        "COCO's layout: with annotations/instances_SPLIT.json and SPLIT; or one such .json",
    )
    command.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder of the pictures of a .json, by default where COCO has it, or the file's own",
    )
    command.add_argument(
        "--workers",
        type=at_least_one,
        metavar="N",
        default=cpu_count(),
        help="processes that read images, by default one per core",
    )
    command.add_argument(
        "--reduce_zero_label",
        choices=("true", "false"),
        help="of scenes with a classes.txt, as in their recipe: true, the default, if 0 means "
        "unlabelled in their labels",
    )
    command.set_defaults(command=check)
    return parser.parse_args()


def check(
    folder: Path,
    workers: int,
    reduce_zero_label: bool | None = None,
    images: Path | None = None,
) -> int:
    """Print path and reason of each corrupt image or scene below a folder, and a summary.

    Args:
        folder: of images, of scenes or of COCO's layout, which its layout tells; or a file of
            annotations, .json.
        workers: processes that read, at most.
        reduce_zero_label: of scenes, see :func:`check_scenes`.
        images: of a file of annotations, see :func:`check_file`.

    Returns:
        How many are corrupt.

    Raises:
        UserError: the folder is missing, cannot be read or holds no image; a worker has died.
    """
    annotated = folder.suffix.lower() == ".json" and folder.is_file()
    if images is not None and not annotated:
        raise UserError(f"images: found it with {folder}, expected a file of annotations, .json")
    if not annotated and not folder.is_dir():
        there = "a file" if folder.exists() else "no such folder"
        raise UserError(f"{folder}: found {there}, expected a folder of images")
    if not annotated and holds_scenes(folder):
        return check_scenes(folder, workers, reduce_zero_label)
    if reduce_zero_label is not None:
        raise UserError(
            f"reduce_zero_label: found it with {folder}, which holds no scenes, expected a "
            "folder of scenes: images/SPLIT and annotations/SPLIT"
        )
    if annotated:
        return check_file(folder, images, workers)
    if holds_annotations(folder):
        return check_coco(folder, workers)
    return check_images(folder, workers)


def check_images(folder: Path, workers: int) -> int:
    """Check a folder with images anywhere in it, as :func:`check` does."""
    paths, left_out = files_below(folder)
    corrupt = 0
    with closing(looked_at(_why_unreadable, paths, workers, "img")) as looks:
        for path, reason in looks:
            if reason:
                corrupt += 1
                tell(path, reason)
    ignored = f", {left_out} ignored" if str(left_out) else ""
    print(f"{folder}: {corrupt:,} of {counted(len(paths), 'image')} cannot be read{ignored}")
    return corrupt


def _why_unreadable(path: str) -> str | None:
    try:
        open_image(path)
    except UnreadableError as error:
        return error.reason
    return None


def main() -> None:
    """The command line."""
    given = parse_arguments()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # file names may hold any bytes
    zero = given.reduce_zero_label and given.reduce_zero_label == "true"
    sys.exit(1 if given.command(given.folder, given.workers, zero, given.images) else 0)


if __name__ == "__main__":
    run(main)
