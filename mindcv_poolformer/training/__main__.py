"""Set runs side by side: a table, and their curves in one picture.

python -m mindcv_poolformer.training compare runs/a runs/b --output curves.png
"""

from __future__ import annotations

from ..runtime import requires_mindspore  # noqa: F401

# isort: split
import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..runtime.arguments import OneLineParser
from ..runtime.errors import UserError, run
from ..runtime.files import replaced_file
from .curves import SCORES, Run, draw_runs, read_run, score_of


def parse_arguments() -> argparse.Namespace:
    """The command, its run folders and its options."""
    parser = OneLineParser(
        prog="python -m mindcv_poolformer.training", description="Look at runs of train.py."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "compare", help="print what several runs have reached, and draw their curves"
    )
    command.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="--ckpt_save_dir of train.py"
    )
    command.add_argument(
        "--output", type=Path, default=Path("curves.png"), help="picture, default curves.png"
    )
    command.add_argument("--overwrite", action="store_true", help="replace the picture")
    command.set_defaults(command=compare)
    return parser.parse_args()


def compare(folders: Sequence[Path], output: Path, overwrite: bool) -> None:
    """Print a table of runs and draw their curves.

    Raises:
        UserError: a folder is none of a run, or given twice; the picture is there already, or
            cannot be written.
    """
    _check_target(output, overwrite)
    for number, folder in enumerate(folders):
        if folder.resolve() in [other.resolve() for other in folders[:number]]:
            raise UserError(f"{folder}: found it twice, expected different runs")
    runs = list(map(read_run, folders))
    print(*table(runs), sep="\n")
    with replaced_file(output) as file:
        draw_runs(runs, file)
    print(f"curves: {output}")


def _check_target(path: Path, overwrite: bool) -> None:
    if path.suffix != ".png":
        raise UserError(f"output: found {path}, expected a name that ends in .png")
    if path.exists() and not overwrite:
        raise UserError(f"output: {path} exists, expected a new name, or --overwrite")
    if path.exists() and not path.is_file():
        raise UserError(f"output: found {path} to be no file, expected a picture to overwrite")


def table(runs: Sequence[Run]) -> Iterator[str]:
    """One line for each run, below a heading, in columns."""
    scores = {score_of(each.best) for each in runs if each.best} or {"top1"}
    name = f"best {SCORES[scores.pop()]}" if len(scores) == 1 else "best"
    rows = [("run", "model", "epochs", name, "final loss", "images/s")]
    for each in runs:
        best, loss, speed = each.best, each.loss, each.speed
        rows.append(
            (
                str(each.folder),
                each.model,
                f"{each.epoch:.4g}/{each.epochs}",
                f"{best[score_of(best)]:.2f} % ({best['epoch']})" if best else "-",
                "-" if loss is None else f"{loss:.4f}",
                "-" if speed is None else f"{speed:.1f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        left = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        yield "  ".join(left + right)


def main() -> None:
    """The command line."""
    arguments = parse_arguments()
    arguments.command(arguments.runs, arguments.output, arguments.overwrite)


if __name__ == "__main__":
    run(main)
