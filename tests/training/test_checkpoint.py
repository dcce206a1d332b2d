from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mindcv_poolformer.config import CheckpointingConfig
from mindcv_poolformer.runtime.checkpoint_file import save_checkpoint
from mindcv_poolformer.runtime.errors import UserError
from mindcv_poolformer.training.checkpoint import (
    RunCheckpoints,
    evaluated_weights,
    training_state,
)
from mindcv_poolformer.training.step import TrainStep


def test_the_state_is_all_that_a_step_changes(step: TrainStep) -> None:
    everything = {p.name for p in step.get_parameters()}
    everything |= {step.loss_scaler.scale_value.name, step.loss_scaler.counter.name}
    elsewhere = {p.name for p in step.network_weights}
    elsewhere |= {p.name for p in step.grad_sum}  # zero between two updates
    assert set(training_state(step)) == everything - elsewhere - {"stop"}


def test_an_average_stands_for_each_trained_weight(step: TrainStep) -> None:
    for average in step.ema:
        average.set_data(Tensor(np.full(average.shape, 7, np.float32)))
    weights = evaluated_weights(step)
    assert set(weights) == {p.name for p in step.network_weights}
    frozen = {name for name, value in weights.items() if (value.asnumpy() != 7).any()}
    assert frozen == {"head.bias"}


def test_a_checkpoint_is_plain_mindspore(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    weights = {"w": Tensor(np.arange(3, dtype=np.float32))}
    state = {"m": Tensor(4, ms.int32)}
    save_checkpoint(path, weights, {"classes": ["ä"]}, state)
    loaded = ms.load_checkpoint(str(path))
    assert json.loads(loaded["metadata"]) == {"classes": ["ä"]}
    assert (loaded["w"].asnumpy() == [0, 1, 2]).all()
    assert int(loaded["train.m"]) == 4
    assert [file.name for file in tmp_path.iterdir()] == ["a.ckpt"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    save_checkpoint(path, {"w": Tensor(np.ones(2, np.float32))}, {})
    old = path.read_bytes()
    with pytest.raises(TypeError):
        save_checkpoint(path, {"w": Tensor(np.zeros(2, np.float32))}, {"bad": object()})
    assert path.read_bytes() == old
    assert [file.name for file in tmp_path.iterdir()] == ["a.ckpt"]


def test_the_one_before_stays_as_previous(tmp_path: Path, step: TrainStep) -> None:
    def saved(name: str) -> int:
        metadata = json.loads(ms.load_checkpoint(str(tmp_path / name))["metadata"])
        return metadata["position"]["step"]

    checkpoints = RunCheckpoints(tmp_path, CheckpointingConfig(), {})
    checkpoints.save_last(step, {"step": 1})
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    checkpoints.save_last(step, {"step": 2})
    assert (saved("last.ckpt"), saved("previous.ckpt")) == (2, 1)
    history = checkpoints.history  # of a run that goes on from previous.ckpt
    checkpoints = RunCheckpoints(tmp_path, CheckpointingConfig(), {}, history, last_is_whole=False)
    checkpoints.save_last(step, {"step": 3})
    assert (saved("last.ckpt"), saved("previous.ckpt")) == (3, 1)
    checkpoints.save_last(step, {"step": 4})
    assert (saved("last.ckpt"), saved("previous.ckpt")) == (4, 3)


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, step: TrainStep) -> None:
    checkpoints = RunCheckpoints(tmp_path, CheckpointingConfig(), {})
    checkpoints.save_last(step, {})
    saved = (tmp_path / "last.ckpt").read_bytes()
    step.network_weights[0].set_data(Tensor(np.full(step.network_weights[0].shape, np.nan)))
    for save in (checkpoints.save_last, partial(checkpoints.save_epoch, 1, 50.0)):
        with pytest.raises(UserError, match="patch_embed.proj.weight not finite after step 0"):
            save(step, {})
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    assert (tmp_path / "last.ckpt").read_bytes() == saved


@pytest.mark.parametrize(
    ("policy", "kept"),
    [("top_k", {2, 4}), ("latest_k", {4, 5}), (None, set())],
)
def test_what_a_policy_keeps(
    tmp_path: Path, step: TrainStep, policy: str | None, kept: set[int]
) -> None:
    scores = {1: 50.0, 2: 80.0, 3: 70.0, 4: 80.0, 5: 60.0}
    keeping = CheckpointingConfig(ckpt_save_policy=policy, keep_checkpoint_max=2)
    history = None
    for epoch, top1 in scores.items():  # each as if the process had been started anew
        checkpoints = RunCheckpoints(tmp_path, keeping, {"model": "m"}, history)
        checkpoints.save_epoch(epoch, top1, step, {"step": epoch})
        last = ms.load_checkpoint(str(tmp_path / "last.ckpt"))
        history = json.loads(last["metadata"])["history"]
        assert json.loads(last["metadata"])["position"] == {"step": epoch}
    assert {int(file.stem[6:]) for file in tmp_path.glob("epoch_*.ckpt")} == kept
    assert (checkpoints.best_epoch, checkpoints.best_score) == (4, 80.0)
    best = json.loads(ms.load_checkpoint(str(tmp_path / "best.ckpt"))["metadata"])
    assert (best["epoch"], best["top1"], best["model"]) == (4, 80.0, "m")


def test_epochs_that_were_not_validated(tmp_path: Path, step: TrainStep) -> None:
    checkpoints = RunCheckpoints(tmp_path, CheckpointingConfig(ckpt_save_policy="top_k"), {})
    checkpoints.save_epoch(1, None, step, {})
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    assert checkpoints.summary() == []


def test_a_new_run_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    ours = ["last.ckpt", "previous.ckpt", "best.ckpt", "epoch_0012.ckpt"]
    others = ["epoch_best.ckpt", "pretrained.ckpt", "notes.txt"]
    for name in ours + others:
        (tmp_path / name).touch()
    history = {"best_epoch": 3, "best_top1": 50.0, "kept": [[12, 50.0]]}
    RunCheckpoints(tmp_path, CheckpointingConfig(), {}, history)
    assert all((tmp_path / name).exists() for name in ours)
    RunCheckpoints(tmp_path, CheckpointingConfig(), {})
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(others)
