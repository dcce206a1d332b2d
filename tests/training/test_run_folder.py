from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from mindcv_poolformer.config import CheckpointingConfig, Recipe
from mindcv_poolformer.runtime.checkpoint_file import Checkpoint
from mindcv_poolformer.training.checkpoint import TOP1
from mindcv_poolformer.training.image_list import what_changed, write_image_list
from mindcv_poolformer.training.progress import Progress
from mindcv_poolformer.training.records import read_records
from mindcv_poolformer.training.resume import Found
from mindcv_poolformer.training.run_folder import RunFolder
from mindcv_poolformer.training.step import TrainStep


def metadata(path: Path) -> dict:
    return json.loads(ms.load_checkpoint(str(path))["metadata"])


@pytest.mark.parametrize(
    ("policy", "kept", "saved"),
    [
        ("top_k", {4, 5}, [1, 2, 3, 4, 5, 6]),
        ("latest_k", {4, 6}, [1, 2, 2, 4, 5, 6]),
        (None, set(), [1, 2, 2, 4, 5, 6]),
    ],
)
def test_every_validated_epoch_counts_between_two_checkpoints_too(
    tmp_path: Path, step: TrainStep, policy: str | None, kept: set[int], saved: list[int]
) -> None:
    keeping = CheckpointingConfig(
        ckpt_save_interval=2, ckpt_save_policy=policy, keep_checkpoint_max=2
    )
    recipe = replace(Recipe(), checkpointing=keeping)
    progress = Progress(1, np.zeros(6), 8, 0, show=False)
    found = []
    with RunFolder(tmp_path, recipe, {"classes": []}, step, progress, None, [], TOP1) as folder:
        for score in (50.0, 60.0, 55.0, 70.0, 80.0, 40.0):
            progress.advance()
            folder.save(score, stopping=False)
            found.append(metadata(tmp_path / "last.ckpt")["position"]["step"])
    assert found == saved
    assert {int(file.stem[6:]) for file in tmp_path.glob("epoch_*.ckpt")} == kept
    best = metadata(tmp_path / "best.ckpt")
    assert (best["epoch"], best["top1"]) == (5, 80.0)
    assert metadata(tmp_path / "last.ckpt")["history"]["best_epoch"] == 5


@pytest.mark.parametrize("own", [True, False])
def test_what_a_folder_holds_is_kept_where_it_is_of_the_run_that_goes_on(
    tmp_path: Path, step: TrainStep, own: bool
) -> None:
    images = [("cat/1.png", 0), ("dog/1.png", 1)]
    write_image_list(tmp_path, images if own else images[:1])
    row = {"kind": "train", "step": 1, "epoch": 1.0, "loss": 0.5}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "best.ckpt").touch()
    history = {"best_epoch": 1, "best_top1": 50.0, "kept": []}
    found = Found(Path("last.ckpt"), Checkpoint({}, {"history": history}, {}), own)
    progress = Progress(1, np.zeros(6), 8, 2, show=False)
    with RunFolder(tmp_path, Recipe(), {"classes": []}, step, progress, found, images, TOP1):
        pass
    assert read_records(tmp_path) == ([row] if own else [])
    assert what_changed(tmp_path, images) is None
    assert (tmp_path / "best.ckpt").exists() == own
