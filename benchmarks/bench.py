"""Side by side: this project, Hugging Face on PyTorch, and stock MindCV, on this machine's CPU.

python -m benchmarks.bench [--quick] [--only targets scaling variants families startup breakdown]

Every contender is a process of its own in an environment without tuning variables; it stands still
while another is measured. Ratios are of medians over interleaved rounds. The exit code is 0 when
everything was measured, whether or not the targets are met; 1 when a contender died.
"""

from __future__ import annotations

from .rounds import ENVIRONMENT, say  # before mindcv_poolformer sets variables of its own

# isort: split
import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from mindcv_poolformer.data.folder import scan_folder
from mindcv_poolformer.runtime.arguments import OneLineParser, at_least_one
from mindcv_poolformer.runtime.errors import UserError, run

from . import report
from .chart import draw_chart
from .field import write_weights
from .photographs import write_photographs
from .sections import MODEL, SECTIONS, Measured, Plan
from .targets import INPUT

BATCHES = 2  # of the input pipelines in the photographs; an epoch holds whole ones alone


def main() -> None:
    given = parse(sys.argv[1:])
    if sys.platform != "linux":
        raise UserError(f"bench: found {sys.platform}, expected linux: it stops processes")
    around = report.surroundings()
    with tempfile.TemporaryDirectory(prefix="bench_") as work:
        plan = make_plan(given, Path(work))
        put_photographs(given, plan)
        write_weights(MODEL, plan.folder, ENVIRONMENT)
        measured = {}
        for name in given.only:
            try:
                measured[name] = SECTIONS[name](plan)
            except UserError as error:  # the other sections are not lost with this one
                measured[name] = Measured(failures=[f"{name}: {error}"])
    show(measured, around, given)
    failures = [line for section in measured.values() for line in section.failures]
    if failures:
        raise UserError("; ".join(failures))


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = OneLineParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="targets alone, few rounds")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="sections to run")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark"), help="folder")
    parser.add_argument("--images", type=Path, help="folder <class>/<image>; default: synthetic")
    parser.add_argument("--rounds", type=at_least_one, help="for the targets")
    parser.add_argument("--workers", type=at_least_one, default=os.cpu_count(), help="for data")
    given = parser.parse_args(words)
    given.only = given.only or (["targets"] if given.quick else list(SECTIONS))
    given.rounds = given.rounds or (2 if given.quick else 9)
    return given


def make_plan(given: argparse.Namespace, work: Path) -> Plan:
    """Say how much to measure."""
    return Plan(
        folder=work,
        photographs=work / "photographs",
        drawn=INPUT[0] * (1 if given.quick else BATCHES),
        caches=given.output.resolve() / "caches" if given.quick else work,
        environment=ENVIRONMENT,
        rounds=given.rounds,
        seconds=0.5 if given.quick else 1.5,
        workers=given.workers,
        at_once=2 if given.quick else 1,
    )


def put_photographs(given: argparse.Namespace, plan: Plan) -> None:
    """Draw the photographs where the plan has them, or link those that were given.

    Raises:
        UserError: those given are no folder of classes, or too few for a batch of the targets'
            input pipelines.
    """
    if not given.images:
        say("drawing photographs")
        write_photographs(plan.photographs / "train", plan.drawn)
        return
    found = len(scan_folder(given.images))
    if "targets" in given.only and found < INPUT[0]:
        raise UserError(
            f"images: found {found} in {given.images}, expected at least {INPUT[0]}, a batch of "
            "the input pipelines"
        )
    plan.photographs.mkdir()
    (plan.photographs / "train").symlink_to(given.images.resolve())


def show(
    measured: Mapping[str, Measured], around: Mapping[str, object], given: argparse.Namespace
) -> None:
    """Print the tables; write them, the raw figures and the chart."""
    notes = report.notes(around, given.rounds, given.quick, synthetic=given.images is None)
    unavailable = [f"Not measured: {line}." for m in measured.values() for line in m.unavailable]
    tables = [text for section in measured.values() for text in section.tables]
    text = "\n\n".join([*tables, "\n".join([notes, *unavailable])])
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "benchmark.md").write_text(text + "\n")
    report.write_json(
        given.output / "benchmark.json",
        around=around,
        settings={key: str(value) for key, value in vars(given).items()},
        sections={name: vars(section) for name, section in measured.items()},
    )
    if "targets" in measured and measured["targets"].records:
        title = f"{MODEL}, fp32, 224 px, {around['cores']} cores"
        draw_chart(measured["targets"].records["targets"], title, given.output / "benchmark.png")
    print(text)
    say(f"written: {given.output}/benchmark.md, .json and .png")


if __name__ == "__main__":
    run(main)
