"""The tables in Markdown, and all that was measured in one JSON file."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .ascend import MINDCV
from .rounds import ROOT, ROUNDS_BESIDE, Record, Shape
from .targets import INPUT, Result, rate

PACKAGES = (
    "mindspore",
    "mindcv",
    "onnxruntime",
    "torch",
    "transformers",
    "timm",
    "numpy",
    "pillow",
)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are figures."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def targets_table(results: Iterable[Result]) -> str:
    """Each target with the ratio measured, and whether it is reached."""
    head = ("poolformer_s12, fp32", "target", "measured", "", "this project", "the other")
    return table(head, [result.cells for result in results])


def contenders_table(records: Mapping[str, Record]) -> str:
    """Each contender with what it took, at each shape."""
    head = ("contender", "batch x px", "images/s", "start", "first call", "peak memory")
    rows = [
        (
            record.label,
            "{} x {}".format(*shape),
            rate(record.spread(shape)),
            f"{record.start_seconds:.1f} s",
            f"{record.first_call_seconds[shape]:.1f} s",
            f"{record.peak_bytes[shape] / 1e6:,.0f} MB",
        )
        for name, record in records.items()
        if not name.startswith("gemm")
        for shape in record.rounds
    ]
    return table(head, rows)


def input_table(records: Mapping[str, Record], cores: int) -> str:
    """What each input pipeline makes, and the cores that NPUs would need of it.

    Args:
        records: of the contenders.
        cores: that each pipeline had.
    """
    npus = MINDCV[-1]
    head = ("input pipeline", "images/s", "a core", "cores for 1,000 images/s")
    head += (f"for {npus.hardware}, {npus.images_per_second:,.0f} images/s",)
    rows = []
    for name in ("pipeline", "mindcv_pipeline"):
        if name in records and INPUT in records[name].rounds:
            spread = records[name].spread(INPUT)
            a_core = spread[1] / cores
            needed = (f"{images / a_core:.1f}" for images in (1000, npus.images_per_second))
            rows.append((records[name].label, rate(spread), f"{a_core:.0f}", *needed))
    return table(head, rows)


def comparison_table(
    head: str, rows: Sequence[tuple[str, Mapping[str, Record], Shape]], names: Sequence[str]
) -> str:
    """Some contenders over several networks or shapes; the last two columns compare two of them.

    Args:
        head: of the first column.
        rows: text of the first column, the records, and the shape that counts.
        names: of the contenders; the first is compared with the last.
    """
    labels = [next((r[n].label for _, r, _ in rows if n in r), n) for n in names]
    lines = []
    for text, records, shape in rows:
        measured = {n: records[n] for n in names if n in records and shape in records[n].rounds}
        cells = [rate(measured[n].spread(shape)) if n in measured else "" for n in names]
        ratio = ""
        if names[0] in measured and names[-1] in measured:
            ours, theirs = (measured[n].spread(shape)[1] for n in (names[0], names[-1]))
            ratio = f"{ours / theirs:.2f}x"
        lines.append((text, *cells, ratio))
    return table((head, *(f"{label}, images/s" for label in labels), "first vs last"), lines)


def startup_table(records: Mapping[str, Record], shape: Shape) -> str:
    """Seconds until the first batch is through."""
    rows = [
        (
            record.label,
            f"{record.start_seconds:.1f} s",
            f"{record.first_call_seconds[shape]:.1f} s",
            f"{record.start_seconds + record.first_call_seconds[shape]:.1f} s",
        )
        for record in records.values()
        if shape in record.first_call_seconds
    ]
    return table(
        ("start-up, batch {} at {} px".format(*shape), "start", "first call", "in all"), rows
    )


def kernels_table(calls: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Milliseconds and, in brackets, kernels of each call, by kind of kernel.

    Args:
        calls: by what is called, as the contender ``breakdown`` gives them.
    """
    kinds = next(iter(calls.values()))
    rows = [
        (
            kind,
            *(f"{call[kind]['ms']:.1f} ({call[kind]['kernels']:.0f})" for call in calls.values()),
        )
        for kind in kinds
    ]
    sums = (
        (f"{sum(k['ms'] for k in c.values()):.1f}", f"{sum(k['kernels'] for k in c.values()):.0f}")
        for c in calls.values()
    )
    rows.append(("in all", *(f"{ms} ({kernels})" for ms, kernels in sums)))
    return table(("ms (kernels) by MindSpore's profiler", *calls), rows)


def steps_table(steps: Mapping[str, float]) -> str:
    """Milliseconds of each step of a training image."""
    rows = [(step, f"{taken:.2f} ms") for step, taken in steps.items()]
    return table(("training image of the official recipe", "on one core"), rows)


def notes(around: Mapping[str, object], rounds: int, quick: bool, synthetic: bool) -> str:
    """What the tables do not say themselves."""
    versions = ", ".join(f"{name} {found}" for name, found in around["versions"].items() if found)
    images = (
        "synthetic JPEG files of 500 x 375 px and 110 kB" if synthetic else "files of the user's"
    )
    lines = [
        f"{around['processor']}, {around['cores']} cores; Python {around['python']}, {versions}; "
        f"commit {str(around['commit'])[:12] or 'unknown'}, {around['time']}.",
        f"Medians of interleaved rounds, {rounds} for the targets and {ROUNDS_BESIDE} beside them, "
        "in brackets the lowest and highest; all contenders in one run, each in its own process "
        "and stopped while it is not its turn. Batch 8 unless said otherwise; training is forward, "
        "loss, backward and AdamW, without drop path.",
        f"Input pipelines: {images}, batches of {INPUT[0]} at {INPUT[1]} px; official augmentation "
        "here, MindCV's own recipe there, equally many workers. The NPUs' rate is what MindCV "
        "publishes for training poolformer_s12, not measured here; that more cores make "
        "proportionally more is assumed. Memory: resident high-water mark "
        "of the process, with start-up and compilation.",
    ]
    if quick:
        lines.append(
            "A quick run: contenders start two at a time, and torch.compile finds its cache if the "
            "output folder has one; start-up times mean little."
        )
    return "\n".join(lines)


def surroundings() -> dict[str, object]:
    """Machine, versions and commit."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return {
        "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": found,
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": len(_git("status", "--porcelain").splitlines()),
    }


def write_json(path: Path, **content: object) -> None:
    """Write everything; a record's shapes become keys such as 8x224."""
    path.write_text(json.dumps(content, indent=1, default=_plain) + "\n")


def _plain(value: object) -> object:
    if isinstance(value, Record):
        fields = asdict(value)
        for name in ("first_call_seconds", "rounds", "peak_bytes"):
            fields[name] = {f"{b}x{s}": found for (b, s), found in fields[name].items()}
        return fields
    if isinstance(value, Result):
        return asdict(value) | {"verdict": value.verdict}
    raise TypeError(f"results: found {type(value)}, expected what JSON holds")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _git(*words: str) -> str:
    found = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip()
