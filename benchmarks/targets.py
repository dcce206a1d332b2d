"""What the project wants to reach, and what was measured of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .rounds import Record, Shape

BATCH: Shape = (8, 224)
SINGLE: Shape = (1, 224)
INPUT: Shape = (128, 224)  # of the input pipelines, as in the recipes
PRODUCT: Shape = (1, 4096)  # one product of two square matrices with that edge

PASS, SHORT, NOT_MEASURED = "pass", "short", "not measured"


@dataclass(frozen=True)
class Target:
    """One line of the table.

    Args:
        what: in words.
        least: the ratio that passes.
        kind: what is compared: "speed", images/s of ours over theirs; "memory", peak bytes of
            theirs over ours; "peak", multiply-accumulates/s of ours over the best of theirs.
        ours: name of this project's contender.
        theirs: names of those it is compared with.
        shape: of the calls compared.
    """

    what: str
    least: float
    kind: Literal["speed", "memory", "peak"]
    ours: str
    theirs: tuple[str, ...]
    shape: Shape = BATCH


TARGETS = (
    Target("ONNX Runtime vs Hugging Face eager", 1.6, "speed", "onnx", ("hf",)),
    Target("ONNX Runtime vs torch.compile", 1.1, "speed", "onnx", ("hf_compiled",)),
    Target("batch 1: ONNX Runtime vs Hugging Face eager", 1.5, "speed", "onnx", ("hf",), SINGLE),
    Target("peak memory, ONNX Runtime vs Hugging Face", 2.5, "memory", "onnx", ("hf",)),
    Target("deploy form vs Hugging Face eager", 1.4, "speed", "deploy", ("hf",)),
    Target("deploy form vs torch.compile", 1.0, "speed", "deploy", ("hf_compiled",)),
    Target("plain forward vs Hugging Face eager", 1.0, "speed", "evaluation", ("hf",)),
    Target("training step vs Hugging Face eager", 1.0, "speed", "training", ("hf_training",)),
    Target("deploy form vs stock MindCV", 20.0, "speed", "deploy", ("mindcv",)),
    Target("plain forward vs stock MindCV", 14.0, "speed", "evaluation", ("mindcv",)),
    Target("training step vs stock MindCV", 9.0, "speed", "training", ("mindcv_training",)),
    Target(
        "deploy form, share of the GEMM peak", 0.85, "peak", "deploy", ("gemm_numpy", "gemm_torch")
    ),
    Target("batch 1: deploy form vs Hugging Face eager", 1.3, "speed", "deploy", ("hf",), SINGLE),
    Target("peak memory, deploy form vs Hugging Face", 1.0, "memory", "deploy", ("hf",)),
    Target("peak memory, plain forward vs Hugging Face", 1.0, "memory", "evaluation", ("hf",)),
    Target("peak memory, training vs Hugging Face", 1.0, "memory", "training", ("hf_training",)),
)


@dataclass(frozen=True)
class Result:
    """A target beside what was measured.

    Args:
        target: the target.
        measured: the ratio, None if one of the two sides was not measured.
        ours: this project's figure with its unit, empty if there is none.
        theirs: that of the other side.
    """

    target: Target
    measured: float | None
    ours: str = ""
    theirs: str = ""

    @property
    def verdict(self) -> str:
        """pass, short or not measured."""
        if self.measured is None:
            return NOT_MEASURED
        return PASS if self.measured >= self.target.least else SHORT

    @property
    def cells(self) -> tuple[str, ...]:
        """What the table shows: words, target, measured, verdict and both figures."""
        target = self.target
        measured = "" if self.measured is None else _ratio(self.measured, target.kind)
        least = _ratio(target.least, target.kind)
        return target.what, least, measured, self.verdict, self.ours, self.theirs


def measure(target: Target, records: Mapping[str, Record], macs: int) -> Result:
    """Compare the medians.

    Args:
        target: what to compare.
        records: of the contenders that were measured.
        macs: multiply-accumulates of one image, convolutions and classifier alone.
    """
    ours = records.get(target.ours)
    theirs = [records[name] for name in target.theirs if name in records]
    shape = PRODUCT if target.kind == "peak" else target.shape
    theirs = [record for record in theirs if shape in record.rounds]
    if ours is None or target.shape not in ours.rounds or not theirs:
        return Result(target, None)
    if target.kind == "peak":
        return _against_peak(target, ours, theirs, macs)
    if target.kind == "memory":
        found, other = ours.peak_bytes[shape], theirs[0].peak_bytes[shape]
        return Result(target, other / found, f"{found / 1e6:,.0f} MB", f"{other / 1e6:,.0f} MB")
    rates = ours.spread(shape), theirs[0].spread(shape)
    return Result(target, rates[0][1] / rates[1][1], *(f"{rate(r)} images/s" for r in rates))


def _against_peak(target: Target, ours: Record, theirs: list[Record], macs: int) -> Result:
    fastest = max(theirs, key=lambda record: record.spread(PRODUCT)[1])
    peak = PRODUCT[1] ** 3 * fastest.spread(PRODUCT)[1]
    found = macs * ours.spread(target.shape)[1]
    labels = f"{found / 1e9:.0f} GMAC/s", f"{peak / 1e9:.0f} GMAC/s, {fastest.label}"
    return Result(target, found / peak, *labels)


def rate(spread: tuple[float, float, float]) -> str:
    """Median, and in brackets lowest and highest round, with three digits."""
    digits = max(0, 2 - math.floor(math.log10(spread[1])))
    low, middle, high = (f"{value:.{digits}f}" for value in spread)
    return f"{middle} ({low}–{high})"


def _ratio(value: float, kind: str) -> str:
    """Rounded down, so that what falls short does not look as if it passed."""
    if kind == "peak":
        return f"{math.floor(value * 100 + 1e-9)} %"
    return f"{math.floor(value * 100 + 1e-9) / 100:.2f}x"
