from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from mindcv_poolformer.training.curves import draw_curves
from mindcv_poolformer.training.records import Records, read_records, write_facts


def test_the_folder_tells_recipe_and_classes(tmp_path: Path) -> None:
    write_facts(tmp_path, "seed: 3\n", ["cat", "dög"])
    assert (tmp_path / "recipe.yaml").read_text() == "seed: 3\n"
    classes = json.loads((tmp_path / "classes.json").read_text())
    assert classes == {"cat": 0, "dög": 1}


def _events(path: Path) -> Iterator[Event]:
    """Read a file of TensorBoard: a length and its checksum, an event and its checksum."""
    content = path.read_bytes()
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        yield Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]


def test_records_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    """By their epochs: batches of twice the size count half the steps."""
    records = Records(tmp_path, 0)
    for step in (10, 20, 30):
        records.write("train", step, {"epoch": step / 10, "loss": 1.0 / step, "lr": 0.1})
    records.close()
    records = Records(tmp_path, 2.0)
    records.write("val", 10, {"epoch": 2, "top1": 50.0, "top5": 90.0, "loss": 0.5})
    records.close()
    rows = read_records(tmp_path)
    assert [(row["kind"], row["epoch"]) for row in rows] == [
        ("train", 1.0),
        ("train", 2.0),
        ("val", 2),
    ]
    events = [event for path in (tmp_path / "tensorboard").iterdir() for event in _events(path)]
    starts = [event.step for event in events if event.HasField("session_log")]
    assert starts == [30]  # from where TensorBoard forgets what came before


def test_a_line_cut_short_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"kind": "train", "step": 1, "epoch": 1}\n{"kind": "tra'
    )
    assert [row["step"] for row in read_records(tmp_path)] == [1]
    Records(tmp_path, 1).write("val", 1, {"epoch": 1, "top1": 3.0})
    assert [row["kind"] for row in read_records(tmp_path)] == ["train", "val"]


def test_a_loss_that_overflowed_is_a_gap(tmp_path: Path) -> None:
    records = Records(tmp_path, 0)
    records.write("train", 1, {"epoch": 1, "loss": None, "lr": 0.1})
    records.close()
    assert read_records(tmp_path)[0]["loss"] is None
    assert draw_curves(tmp_path).exists()


def test_curves_show_what_was_recorded(tmp_path: Path) -> None:
    def drawn() -> np.ndarray:
        return np.asarray(Image.open(draw_curves(tmp_path)).convert("L"))

    empty = drawn()
    records = Records(tmp_path, 0)
    for epoch in (1, 2, 3):
        records.write("train", epoch, {"epoch": epoch, "loss": 1 / epoch, "lr": 0.1 * epoch})
        row = {"epoch": epoch, "top1": 30.0 * epoch, "top5": 90.0, "loss": 0.5}
        records.write("val", epoch, row)
    records.close()
    full = drawn()
    assert full.shape == empty.shape
    width = full.shape[1] // 3
    for panel in range(3):  # loss, learning rate, accuracy
        part = slice(panel * width, (panel + 1) * width)
        assert (full[:, part] != empty[:, part]).sum() > 500
