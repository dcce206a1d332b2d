"""What a run writes beside its checkpoints: recipe, classes, metrics and their curves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter

from ..runtime.files import replaced_file

METRICS = "metrics.jsonl"
CURVES = "curves.png"


def write_facts(folder: Path, recipe_yaml: str, classes: Sequence[str]) -> None:
    """Write the resolved recipe and the index of each class into the run folder."""
    (folder / "recipe.yaml").write_text(recipe_yaml)
    index = {name: number for number, name in enumerate(classes)}
    (folder / "classes.json").write_text(json.dumps(index, indent=2, ensure_ascii=False) + "\n")


class Records:
    """Writes ``metrics.jsonl`` and TensorBoard scalars into the run folder.

    Args:
        folder: the run folder.
        before_step: records after this step are dropped: the run goes on from there.
    """

    def __init__(self, folder: Path, before_step: int) -> None:
        self.path = folder / METRICS
        kept = [row for row in read_records(folder) if row["step"] <= before_step]
        with replaced_file(self.path) as written:
            written.write_text("".join(json.dumps(row) + "\n" for row in kept))
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=before_step + 1)

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Append one record: kind is train or val, step the steps done so far."""
        with self.path.open("a") as file:
            file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        for name, value in values.items():
            if value is not None:
                self.board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Flush TensorBoard's file."""
        self.board.close()


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Give the records of a run folder, in order; none if it has none.

    A last line that was cut short by the end of the process does not count.
    """
    path = folder / METRICS
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def draw_curves(folder: Path) -> Path:
    """Draw loss, learning rate and accuracy over the epochs; give the path of the PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    records = read_records(folder)
    train = [row for row in records if row["kind"] == "train"]
    val = [row for row in records if row["kind"] == "val"]
    figure, (losses, rates, accuracies) = pyplot.subplots(1, 3, figsize=(13, 3.8), dpi=110)
    for axes, title, rows, key, label in [
        (losses, "loss", train, "loss", "training"),
        (losses, "loss", val, "loss", "validation"),
        (rates, "learning rate", train, "lr", "learning rate"),
        (accuracies, "accuracy (%)", val, "top1", "validation top-1"),
        (accuracies, "accuracy (%)", val, "top5", "validation top-5"),
    ]:
        if rows:
            values = np.array([row[key] for row in rows], np.float64)  # null becomes a gap
            axes.plot([row["epoch"] for row in rows], values, label=label)
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
    if records:
        losses.legend()
    if val:
        accuracies.legend()
    figure.tight_layout()
    figure.savefig(folder / CURVES)
    pyplot.close(figure)
    return folder / CURVES
