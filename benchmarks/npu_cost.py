"""What PoolFormer costs on eight Ascend 910, on paper: a model, not a measurement.

python benchmarks/npu_cost.py

Counts MACs, parameters and bytes (macs.py, operators.py) and sets them against published figures
of the hardware by the roofline model (Williams et al., CACM 52(4), 2009): an operator takes as long
as its arithmetic at the peak or its bytes at the memory's bandwidth, whichever is longer; operators
follow one another. Left out: kernel launches, conversions of layout and dtype, the vector unit's
arithmetic, tiles read twice, what the 32 MB of L2 may save, loss, gradient norm, EMA.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # a checkout need not be installed

from benchmarks.ascend import FACTS, LINKS, MINDCV  # noqa: E402
from benchmarks.macs import macs, parameters  # noqa: E402
from benchmarks.operators import (  # noqa: E402
    BLOCKS,
    GELU_UNFUSED,
    Operator,
    deploy_parameters,
    operators,
)
from mindcv_poolformer.models import POOLFORMERS, Variant, find_variant  # noqa: E402
from mindcv_poolformer.runtime.arguments import OneLineParser, at_least_one  # noqa: E402
from mindcv_poolformer.runtime.errors import UserError, run  # noqa: E402

HEADING = "MODEL, NOT A MEASUREMENT: counted on paper; nothing here has run on an NPU."

ELEMENT = {"fp16": 2, "fp32": 4}
# AdamW of training/optimizer.py, parameters and gradients in float32: the decay reads and writes
# the weight, Adam reads weight, gradient and two moments and writes weight and moments.
UPDATE_BYTES = 4 * (2 + 4 + 3)
GRADIENT_BYTES = 4  # float32 at every AMP level


@dataclass(frozen=True)
class Cost:
    """Work and time of one batch on one NPU.

    ``cube`` is the share of the time in which the matrix unit has work.
    """

    gflop: float  # per image
    megabytes: float  # per image
    intensity: float  # FLOP per byte
    milliseconds: float  # per batch
    cube: float
    images_per_second: float


def roofline(
    work: Sequence[Operator],
    batch_size: int,
    element: int,
    peak: float,
    bandwidth: float,
    further_bytes: int = 0,
) -> Cost:
    """Give the cost of ``work`` in elements of ``element`` bytes, and bytes moved beside it."""
    flop = [2 * op.macs * batch_size for op in work]
    moved = [(op.moved * batch_size + op.weights) * element for op in work]
    seconds = sum(max(f / peak, b / bandwidth) for f, b in zip(flop, moved, strict=True))
    seconds += further_bytes / bandwidth
    total = sum(moved) + further_bytes
    return Cost(
        gflop=sum(flop) / batch_size / 1e9,
        megabytes=total / batch_size / 1e6,
        intensity=sum(flop) / total,
        milliseconds=seconds * 1e3,
        cube=sum(flop) / peak / seconds,
        images_per_second=batch_size / seconds,
    )


def ring_bytes(devices: int, size: int) -> float:
    """Give the bytes that each device sends in a ring all-reduce of ``size`` bytes.

    Source: Patarasuk and Yuan, J. Parallel Distrib. Comput. 69(2), 2009.
    """
    return 2 * (devices - 1) / devices * size


def model_of(name: str, variant: Variant, given: argparse.Namespace) -> dict:
    """Count one variant: everything that the report tells of it."""
    shape = variant.depths, variant.dims
    count = parameters(*shape)
    result = {
        "variant": name,
        "macs": macs(*shape, given.image_size),
        "parameters": {"plain": count, "deploy": deploy_parameters(*shape)},
        "cost": {},
        "allreduce_bytes": ring_bytes(given.devices, count * GRADIENT_BYTES),
    }
    for form in BLOCKS:
        work = operators(*shape, given.image_size, form)
        beside = count * UPDATE_BYTES if form == "train" else 0
        for dtype, element in ELEMENT.items():
            cost = roofline(work, given.batch_size, element, given.peak, given.hbm, beside)
            result["cost"][f"{form} {dtype}"] = asdict(cost)
    return result


def report(models: Sequence[dict], given: argparse.Namespace) -> Iterator[str]:
    """Give the lines: Markdown tables."""
    yield HEADING
    yield (
        f"{given.devices} NPUs, {given.batch_size} images each, {given.image_size} px; peak "
        f"{given.peak / 1e12:g} TFLOP/s, HBM {given.hbm / 1e12:g} TB/s: balance "
        f"{given.peak / given.hbm:.0f} FLOP/byte. fp32 is tensors in float32: the matrix unit "
        "multiplies in float16 alone."
    )
    yield from _forward(models, given)
    yield from _train(models, given)
    yield from _host(models, given)
    yield from _published(models, given)
    yield from _rules()
    yield "\nFigures taken from elsewhere:"
    for fact in FACTS.values():
        yield f"- {fact.what}: {fact.value:,.4g} {fact.unit}. {fact.source}"


def _table(*head: str) -> Iterator[str]:
    yield f"\n| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"


def _forward(models: Sequence[dict], given: argparse.Namespace) -> Iterator[str]:
    yield from _table(
        "forward",
        "form",
        "GMACs (fvcore)",
        "parameters",
        "MB per image",
        "FLOP/byte",
        "roofline images/s per NPU",
        "cube busy",
    )
    for model in models:
        for key, cost in model["cost"].items():
            form, dtype = key.split()
            if form != "train":
                yield (
                    f"| {model['variant']} | {form}, {dtype} | {model['macs'] / 1e9:.2f} | "
                    f"{model['parameters'][form]:,} | {cost['megabytes']:.1f} | "
                    f"{cost['intensity']:.0f} | {cost['images_per_second']:,.0f} | "
                    f"{cost['cube']:.0%} |"
                )


def _train(models: Sequence[dict], given: argparse.Namespace) -> Iterator[str]:
    yield from _table(
        "training step",
        "MB per image",
        "FLOP/byte",
        "roofline ms",
        f"images/s on {given.devices}",
        "all-reduce MB",
        *(f"ms by {name}" for name in LINKS.values()),
    )
    for model in models:
        sent = model["allreduce_bytes"]
        links = " | ".join(f"{sent / FACTS[link].value * 1e3:.1f}" for link in LINKS)
        for dtype in ELEMENT:
            cost = model["cost"][f"train {dtype}"]
            yield (
                f"| {model['variant']}, {dtype} | {cost['megabytes']:.0f} | "
                f"{cost['intensity']:.0f} | {cost['milliseconds']:.1f} | "
                f"{cost['images_per_second'] * given.devices:,.0f} | {sent / 1e6:.1f} | {links} |"
            )
    yield (
        "\nThe all-reduce (float32 gradients, ring) comes on top as far as it does not overlap. "
        "NPUs 0-3 and 4-7 of a server of eight 910 are separate networks (CANN, distributed "
        "training, 'Precautions'), so that a ring of eight leaves HCCS."
    )


def _host(models: Sequence[dict], given: argparse.Namespace) -> Iterator[str]:
    """What the host has to decode and send so that no NPU waits."""
    yield from _table(
        "input for that, fp16",
        "images/s",
        "JPEG MB/s read",
        "uint8 MB/s sent",
        "float32 MB/s sent",
        "share of PCIe (float32)",
    )
    rows = [
        (m["variant"], m["cost"]["train fp16"]["images_per_second"] * given.devices) for m in models
    ]
    for name, rate in rows:
        pixels = 3 * given.image_size**2 * rate
        share = 4 * pixels / given.devices / FACTS["pcie"].value
        yield (
            f"| {name} | {rate:,.0f} | {rate * FACTS['jpeg'].value / 1e6:,.0f} | "
            f"{pixels / 1e6:,.0f} | {4 * pixels / 1e6:,.0f} | {share:.1%} |"
        )


def _published(models: Sequence[dict], given: argparse.Namespace) -> Iterator[str]:
    """MindCV's own measurements beside the model, where they are of the same work."""
    if (given.devices, given.batch_size, given.image_size) != (8, 128, 224):
        return
    for model in models:
        if model["variant"] == "poolformer_s12":
            step = model["cost"]["train fp16"]["milliseconds"]
            yield f"\nBeside the model's {step:.1f} ms for poolformer_s12, MindCV's measurements:"
            for theirs in MINDCV:
                yield (
                    f"- {theirs.hardware}: {theirs.step_ms:g} ms/step, "
                    f"{theirs.images_per_second:g} img/s. {theirs.source}"
                )


def _rules() -> Iterator[str]:
    yield "\nCounting rule: each operator reads its inputs and writes its outputs once."
    yield from _table("block", "operator", "maps read", "maps written")
    for form, rows in BLOCKS.items():
        rows = rows[len(BLOCKS["plain"]) :] if form == "train" else rows
        for row in rows:
            unit = " (matrix unit)" if row.matrix else ""
            yield f"| {form} | {row.name}{unit} | {row.reads} | {row.writes} |"
    totals = {form: sum(row.reads + row.writes for row in rows) for form, rows in BLOCKS.items()}
    yield (
        f"\nMaps moved by a block: plain {totals['plain']}, deploy {totals['deploy']}, train "
        f"{totals['train']} (plain and the rows above). GELU is one operator here; MindSpore "
        f"composes the erf form of five, which move {GELU_UNFUSED} maps instead of 8 unless the "
        "compiler fuses them."
    )


def parse() -> argparse.Namespace:
    """Read the flags."""
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", help="one alone, such as poolformer_s12")
    parser.add_argument("--batch_size", type=at_least_one, default=128, help="per NPU")
    parser.add_argument("--devices", type=at_least_one, default=8)
    parser.add_argument("--image_size", type=at_least_one, default=224)
    parser.add_argument(
        "--peak", type=_positive, default=FACTS["peak"].value, help="FLOP/s of an NPU, float16"
    )
    parser.add_argument(
        "--hbm", type=_positive, default=FACTS["hbm"].value, help="B/s of an NPU's memory"
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file too")
    given = parser.parse_args()
    if given.variant and given.variant not in POOLFORMERS:
        known = ", ".join(POOLFORMERS)
        raise UserError(f"variant: found {given.variant!r}, expected one of {known}")
    if given.image_size < 3:
        raise UserError(f"image_size: found {given.image_size}, expected at least 3")
    return given


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number > 0")
    return number


def main() -> None:
    given = parse()
    names = [given.variant] if given.variant else POOLFORMERS
    models = [model_of(name, find_variant(name), given) for name in names]
    print(*report(models, given), sep="\n")
    if given.json:
        settings = {key: value for key, value in vars(given).items() if key != "json"}
        facts = {key: fact._asdict() for key, fact in FACTS.items()}
        everything = {"kind": HEADING, "settings": settings, "facts": facts, "models": models}
        given.json.write_text(json.dumps(everything, indent=2) + "\n")


if __name__ == "__main__":
    run(main)
