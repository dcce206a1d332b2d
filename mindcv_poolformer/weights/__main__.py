"""Convert, average and extract weights: everybody's files in and out.

python -m mindcv_poolformer.weights convert poolformer_s36.pth.tar poolformer_s36.ckpt
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from ..models import VARIANTS, find_variant
from ..runtime.arguments import OneLineParser, at_least_one
from ..runtime.checkpoint_file import read_checkpoint
from ..runtime.errors import UserError, run
from .read import read_source
from .recognise import ModelWeights, average, read_weights, recognise
from .write import check_target, format_of, write_weights

EMA_PREFIX = "ema."


def parse_arguments() -> argparse.Namespace:
    """The command, its files and its options."""
    target = OneLineParser(add_help=False)
    target.add_argument("dest", type=Path, help="file or folder to write")
    target.add_argument(
        "--to",
        choices=["ckpt", "safetensors", "hf"],
        help="format of dest, else its suffix decides; hf, a Hugging Face folder, has none",
    )
    target.add_argument("--overwrite", action="store_true", help="replace dest if it exists")

    parser = OneLineParser(
        prog="python -m mindcv_poolformer.weights",
        description="Convert, average and extract weights of a PoolFormer or MetaFormer.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "convert", parents=[_sources(None), target], help="convert to another format"
    )
    command.add_argument(
        "--num_classes",
        type=at_least_one,
        metavar="N",
        help="keep the backbone, and initialise a new head for N classes",
    )
    command.add_argument(
        "--model",
        metavar="NAME",
        help="the model that the weights are of, where several have the same parameters, such as "
        "caformer_s18_384",
    )
    command.set_defaults(command=convert)
    command = commands.add_parser(
        "average", parents=[_sources("+"), target], help="average the weights of several files"
    )
    command.set_defaults(command=average_files)
    command = commands.add_parser(
        "extract_ema",
        parents=[_sources(None), target],
        help="take the moving average out of a run's last.ckpt",
    )
    command.set_defaults(command=extract_ema)
    return parser.parse_args()


def _sources(count: str | None) -> OneLineParser:
    parser = OneLineParser(add_help=False)
    parser.add_argument(
        "source",
        type=Path,
        nargs=count,
        help=".ckpt, .safetensors, .pth.tar, .pth or .bin file, or Hugging Face folder",
    )
    return parser


def convert(arguments: argparse.Namespace) -> ModelWeights:
    """The weights of one file, perhaps with a new head."""
    weights = read_weights(arguments.source, arguments.model)
    if arguments.model and not VARIANTS[weights.model].same_network(find_variant(arguments.model)):
        raise UserError(f"{arguments.source}: found {weights.model}, expected {arguments.model}")
    weights = replace(weights, model=arguments.model or weights.model)
    print(f"{arguments.source}: {weights}")
    if arguments.num_classes:
        weights = weights.with_new_head(arguments.num_classes)
        print(
            f"{arguments.dest}: the head is new and untrained, for {weights.num_classes} classes; "
            "the backbone is kept"
        )
    return weights


def average_files(arguments: argparse.Namespace) -> ModelWeights:
    """The mean of the weights of several files."""
    several = {path: read_weights(path) for path in arguments.source}
    for path, weights in several.items():
        print(f"{path}: {weights}")
    if len(several) < 2:
        raise UserError(f"average: found only {arguments.source[0]}, expected two or more files")
    return average(several)


def extract_ema(arguments: argparse.Namespace) -> ModelWeights:
    """The weights of a run's checkpoint with their moving average in their place."""
    state = read_checkpoint(arguments.source).state
    averages = {
        name.removeprefix(EMA_PREFIX): value.asnumpy()
        for name, value in state.items()
        if name.startswith(EMA_PREFIX)
    }
    if not averages:
        raise UserError(
            f"{arguments.source}: found no moving average, expected last.ckpt of a run with ema"
        )
    run_source = read_source(arguments.source)
    run_source.values.update(averages)
    weights = recognise(run_source)
    print(f"{arguments.source}: {weights}, {len(averages)} moving averages")
    return weights


def main() -> None:
    """The command line."""
    arguments = parse_arguments()
    form = format_of(arguments.dest, arguments.to)
    check_target(arguments.dest, form, arguments.overwrite)
    weights = arguments.command(arguments)
    write_weights(weights, arguments.dest, form)
    parameters = sum(value.size for value in weights.values.values())
    print(f"{arguments.dest}: written as {form}, {parameters:,} parameters")


if __name__ == "__main__":
    run(main)
