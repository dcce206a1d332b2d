"""The figures of the targets as a bar chart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

from .rounds import Record, Shape  # noqa: E402
from .targets import BATCH, INPUT  # noqa: E402

PANELS: tuple[tuple[str, tuple[str, ...], Shape], ...] = (
    ("inference", ("onnx", "deploy", "evaluation", "hf_compiled", "hf", "mindcv"), BATCH),
    ("training step", ("training", "hf_training", "mindcv_training"), BATCH),
    ("input pipeline", ("pipeline", "mindcv_pipeline"), INPUT),
)
OURS = ("onnx", "deploy", "evaluation", "training", "pipeline")
BLUE, GREY = "#1f77b4", "#b0b0b0"


def draw_chart(records: Mapping[str, Record], title: str, path: Path) -> None:
    """Write a PNG: images per second, medians with the spread of the rounds.

    Args:
        records: of the contenders; those that are not there are left out.
        title: over all panels.
        path: of the PNG.
    """
    shares = [len(names) for _, names, _ in PANELS]
    figure, axes = plt.subplots(len(PANELS), figsize=(9, 5.2), height_ratios=shares)
    for axis, (what, names, shape) in zip(axes, PANELS, strict=True):
        _draw_panel(axis, {n: records[n] for n in names if n in records}, shape)
        axis.set_title(f"{what}, batch {shape[0]}", fontsize=10, loc="left")
    axes[-1].set_xlabel("images/s")
    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _draw_panel(axis: plt.Axes, records: Mapping[str, Record], shape: Shape) -> None:
    measured = {name: record for name, record in records.items() if shape in record.rounds}
    if not measured:
        axis.set_axis_off()
        return
    spreads = [record.spread(shape) for record in measured.values()]
    middles = [middle for _, middle, _ in spreads]
    errors = [[m - low for low, m, _ in spreads], [high - m for _, m, high in spreads]]
    labels = [record.label for record in measured.values()]
    colours = [BLUE if name in OURS else GREY for name in measured]
    axis.barh(labels, middles, color=colours, xerr=errors, error_kw={"lw": 1, "ecolor": "0.3"})
    for row, (_, middle, high) in enumerate(spreads):
        axis.annotate(
            f"{middle:.1f}",
            (high, row),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axis.set_xlim(0, 1.12 * max(high for _, _, high in spreads))
    axis.invert_yaxis()
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=9)
