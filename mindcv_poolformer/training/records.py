"""What a run writes beside its checkpoints: recipe, classes, metrics."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.files import replaced_file

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

METRICS = "metrics.jsonl"
CURVES = "curves.png"


def write_facts(folder: Path, recipe_yaml: str, classes: Sequence[str]) -> None:
    """Write the resolved recipe and the index of each class into the run folder."""
    (folder / "recipe.yaml").write_text(recipe_yaml, encoding="utf-8")
    index = {name: number for number, name in enumerate(classes)}
    text = json.dumps(index, indent=2, ensure_ascii=False) + "\n"
    (folder / "classes.json").write_text(text, encoding="utf-8")


class Records:
    """Writes ``metrics.jsonl`` and TensorBoard scalars into the run folder.

    Args:
        folder: the run folder.
        epoch: epochs done, 2.5 in the midst of the third; records after it are dropped, the run
            goes on from there. Steps would not tell: batches of another size are counted anew.
    """

    def __init__(self, folder: Path, epoch: float) -> None:
        writer = _summary_writer()
        self.path = folder / METRICS
        rows = read_records(folder)
        kept = [row for row in rows if row["epoch"] <= epoch]
        dropped = [row["step"] for row in rows if row["epoch"] > epoch]
        with replaced_file(self.path) as written:
            written.write_text("".join(json.dumps(row) + "\n" for row in kept))
        self.board = writer(str(folder / "tensorboard"), purge_step=min(dropped, default=None))

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


def _summary_writer() -> type[SummaryWriter]:
    """Import tensorboardX as where there is no PyTorch.

    It would import that too, for seconds and 200 MB, and scalars have no use for it.
    """
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]  # then its import fails
    try:
        from tensorboardX import SummaryWriter
    finally:
        if hidden:
            del sys.modules["torch"]
    return SummaryWriter


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Give the records of a run folder, in order; none if it has none.

    A last line that was cut short by the end of the process does not count.
    """
    path = folder / METRICS
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
