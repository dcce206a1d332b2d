"""Show the models: all of them, or what one consists of and costs.

python -m mindcv_poolformer.models list
python -m mindcv_poolformer.models summary caformer_s18 --image_size 384
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ..runtime.arguments import OneLineParser, at_least_one
from ..runtime.errors import UserError, run
from .cost import Cost, deploy_parameters, parts_of
from .registry import build
from .variants import VARIANTS, check_image_size, find_variant

SHORT = {"parameters": "params", "activations": "acts"}  # to fit 80 columns
SMALLEST = 3  # pixels, of which the strides leave one place
RIGHT = ("image", "classes", "blocks", "parameters", "MACs", "activations", "top-1")


def parse_arguments() -> argparse.Namespace:
    """The command and its options."""
    parser = OneLineParser(prog="python -m mindcv_poolformer.models", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("list", help="every classifier: its cost, and what is published")
    command.add_argument("pattern", nargs="?", default="", help="part of the names to list")
    command.set_defaults(command=show_list)
    command = commands.add_parser("summary", help="the parts of a model and what they cost")
    command.add_argument("name", help="such as poolformer_s12")
    command.add_argument("--image_size", type=at_least_one, help="else the model's own")
    command.add_argument("--num_classes", type=at_least_one, help="else the model's own")
    command.set_defaults(command=show_summary)
    for command in commands.choices.values():
        command.add_argument("--json", action="store_true", help="for programs")
    return parser.parse_args()


def show_list(arguments: argparse.Namespace) -> None:
    """One line for each model."""
    names = [name for name in VARIANTS if arguments.pattern in name]
    if not names:
        raise UserError(f"list: found no model with {arguments.pattern!r} in its name")
    rows = [
        {
            "model": name,
            "image": variant.image_size,
            "classes": variant.num_classes,
            "parameters": variant.parameters,
            "MACs": round(variant.gmacs * 1e9),
            "top-1": variant.published_top1,
        }
        for name, variant in ((name, VARIANTS[name]) for name in names)
    ]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    show(f"{len(rows)} models, weights published for each; MACs and top-1 as published", rows)


def show_summary(arguments: argparse.Namespace) -> None:
    """One line for each stage, the head, the whole and the deploy form."""
    variant = find_variant(arguments.name)
    size = arguments.image_size or variant.image_size
    check_image_size(arguments.name, size, "image_size")
    if size < SMALLEST:
        raise UserError(f"image_size: found {size}, expected {SMALLEST} or more")
    network = build(variant, num_classes=arguments.num_classes or variant.num_classes)
    parts = parts_of(network, size)
    total = sum((part.cost for part in parts), Cost())
    rows = [
        {
            "part": part.name,
            "blocks": part.blocks or None,
            "mixer": part.mixer or None,
            "output": " x ".join(map(str, part.shape)),
            **figures(part.cost),
        }
        for part in parts
    ]
    deploy = {"part": "deploy form", "parameters": deploy_parameters(network)}
    if arguments.json:
        whole = {"model": arguments.name, "image_size": size, **figures(total)}
        print(json.dumps({**whole, "deploy_parameters": deploy["parameters"], "parts": rows}))
        return
    show(f"{arguments.name} at {size} px", [*rows, {"part": "all", **figures(total)}, deploy])


def figures(cost: Cost) -> dict[str, int]:
    """A cost by the names of the columns."""
    return {"parameters": cost.parameters, "MACs": cost.macs, "activations": cost.activations}


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print a table; the first row has all the columns."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    for name in rows[0]:
        table.add_column(
            SHORT.get(name, name), justify="right" if name in RIGHT else "left", no_wrap=True
        )
    for row in rows:
        table.add_row(*(text(name, row.get(name)) for name in rows[0]))
    Console().print(table)


def text(name: str, value: Any) -> str:
    """A figure for people."""
    if value is None:
        return ""
    if name == "MACs":
        return f"{value / 1e9:.2f} G"
    if name in ("parameters", "activations"):
        return f"{value / 1e6:.2f} M"
    return f"{value} %" if name == "top-1" else str(value)


def main() -> None:
    """The command line."""
    arguments = parse_arguments()
    arguments.command(arguments)


if __name__ == "__main__":
    run(main)
