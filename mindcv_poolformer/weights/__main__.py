"""Convert, average and extract weights: everybody's files in and out.

python -m mindcv_poolformer.weights convert poolformer_s36.pth.tar poolformer_s36.ckpt
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from ..runtime.arguments import OneLineParser, at_least_one
from ..runtime.checkpoint_file import read_checkpoint
from ..runtime.counted import counted
from ..runtime.errors import UserError, run
from .model_weights import ModelWeights, average
from .read import AVERAGES, read_source
from .recognise import read_weights, recognise
from .unwrap import EMA_PREFIX, averages, find_network
from .variant import kind_of, same_network
from .write import check_target, format_of, write_weights


def parse_arguments() -> argparse.Namespace:
    """The command, its files and its options."""
    target = OneLineParser(add_help=False)
    target.add_argument("dest", type=Path, help="file or folder to write")
    target.add_argument(
        "--to",
        choices=["ckpt", "safetensors", "hf", "openmmlab"],
        help="format of dest, else its suffix decides; hf, a Hugging Face folder, has none; "
        "openmmlab, a segmentation model for MMSegmentation or a detector for MMDetection, has "
        ".pth or .safetensors",
    )
    target.add_argument("--overwrite", action="store_true", help="replace dest if it exists")

    parser = OneLineParser(
        prog="python -m mindcv_poolformer.weights",
        description="Convert, average and extract weights of a PoolFormer, a MetaFormer, or a "
        "segmentation model or detector on one.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "convert", parents=[_sources(None), target], help="convert to another format"
    )
    command.add_argument(
        "--num_classes",
        type=at_least_one,
        metavar="N",
        help="keep the backbone, and initialise a new head for N classes; of a segmentation model "
        "or detector its last layers alone",
    )
    command.add_argument(
        "--part",
        choices=["backbone"],
        help="leave out head and neck: the backbone becomes a classifier's without classes",
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
        help="take the moving average out of a run's last.ckpt, or a training checkpoint of others",
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
    print(f"{arguments.source}: {weights}")
    if arguments.part == "backbone":
        new_norm = ", and the norm before its head is new" if weights.is_dense else ""
        weights = weights.backbone_alone()
        print(f"{arguments.dest}: the backbone of it, a {weights.model}{new_norm}")
    if arguments.model:
        same_kind = weights.kind == kind_of(arguments.model)
        if not same_network(weights.model, arguments.model) or not same_kind:
            hint = (
                "" if same_kind or not weights.is_dense else "; --part backbone gives a classifier"
            )
            raise UserError(
                f"{arguments.source}: found {weights.model}, expected {arguments.model}{hint}"
            )
        weights = replace(weights, model=arguments.model)
    if arguments.num_classes:
        part, are = weights.last_layer, "are" if weights.kind == "Mask R-CNN" else "is"
        kept = "all before it" if weights.is_dense else "the backbone"
        weights = weights.with_new_head(arguments.num_classes)
        print(
            f"{arguments.dest}: the {part} {are} new and untrained, for "
            f"{counted(weights.num_classes, 'class')}; {kept} is kept"
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
    """The weights of a training checkpoint with their moving average in their place."""
    source = read_source(arguments.source)
    if source.taken in AVERAGES:  # a checkpoint of PyTorch's: it is taken already
        weights = recognise(source)
        print(f"{arguments.source}: {weights}")
        return weights
    prefix = find_network(source)[1]
    values = dict(source.values)
    if source.path.suffix == ".ckpt" and not source.taken:  # a run's may have them in its state
        state = read_checkpoint(source.path).state
        values |= {k: v.asnumpy() for k, v in state.items() if k.startswith(EMA_PREFIX)}
    found = averages(values, prefix)
    if not found:
        raise UserError(
            f"{arguments.source}: found no moving average, expected last.ckpt of a run with ema, "
            "MindCV's checkpoint of one, or PyTorch's with state_dict_ema"
        )
    values = {k: v for k, v in source.values.items() if not k.startswith(EMA_PREFIX)} | found
    weights = recognise(replace(source, values=values))
    print(f"{arguments.source}: {weights}, {len(found)} moving averages")
    return weights


def main() -> None:
    """The command line."""
    arguments = parse_arguments()
    form = format_of(arguments.dest, arguments.to)
    check_target(arguments.dest, form, arguments.overwrite)
    weights = arguments.command(arguments)
    write_weights(weights, arguments.dest, form)
    moving = (".moving_mean", ".moving_variance")  # are counted nowhere
    parameters = sum(v.size for n, v in weights.values.items() if not n.endswith(moving))
    print(f"{arguments.dest}: written as {form}, {parameters:,} parameters")


if __name__ == "__main__":
    run(main)
