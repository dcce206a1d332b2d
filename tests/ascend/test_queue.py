"""The loop that an Ascend device's queue of batches feeds."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from scripts import Running, assert_equal_weights, command, write_workspace

SCRIPT = Path(__file__).with_name("train_with_queue.py")
ROOT = SCRIPT.parents[2]


def queued(folder: Path, **keys: Any) -> Running:
    """Start train.py as on Ascend with dataset_sink_mode."""
    keys = {"device_target": "Ascend", "dataset_sink_mode": True, **keys}
    _, _, _, *flags = command("train.py", **keys)
    return Running(folder, [sys.executable, str(SCRIPT), *flags])


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.mark.long
def test_it_trains_the_weights_that_the_host_feeds(tmp_path: Path) -> None:
    write_workspace(tmp_path)
    ended = queued(tmp_path, ckpt_save_dir="queued").finish()
    assert ended.code == 0, ended.err
    fed = Running(tmp_path, command("train.py", ckpt_save_dir="fed")).finish()
    assert fed.code == 0, fed.err
    assert_equal_weights(tmp_path / "queued" / "last.ckpt", tmp_path / "fed" / "last.ckpt")
    again = queued(tmp_path, ckpt_save_dir="queued").finish()
    assert again.code == 0, again.err
    assert "the run is complete" in again.out


@pytest.mark.long
def test_an_unreadable_image_is_one_line(tmp_path: Path) -> None:
    write_workspace(tmp_path)
    damaged = tmp_path / "data" / "train" / "class1" / "03.png"
    damaged.write_bytes(b"no picture")
    ended = queued(tmp_path).finish()
    assert ended.code == 1
    assert [line for line in ended.err.splitlines() if line.startswith("error: ")] == [
        "error: image data/train/class1/03.png is not in an image format that Pillow reads"
    ]
    assert "Traceback" not in ended.err


@pytest.mark.long
def test_a_signal_saves_and_ends_it(tmp_path: Path) -> None:
    write_workspace(tmp_path)
    running = queued(tmp_path, epoch_size=2000)
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("run/metrics.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.2)
    running.process.send_signal(signal.SIGTERM)
    ended = running.finish()
    assert ended.code == 75, ended.err
    assert "asked to stop: saved after step" in ended.out
    assert (tmp_path / "run" / "last.ckpt").exists()
