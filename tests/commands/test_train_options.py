"""train.py's options that must do something, end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import forked
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from PIL import Image
from scripts import Ended, weights, write_workspace
from small_network import DEPTHS, DIMS

from mindcv_poolformer.models import PoolFormer

pytestmark = pytest.mark.long


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if row["kind"] == kind]


def run_files(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.long
@pytest.mark.parametrize(("level", "val_level", "power"), [("O3", "O2", 24), ("auto", "auto", 18)])
def test_mixed_precision_with_everything_else(
    tmp_path: Path, level: str, val_level: str, power: int
) -> None:
    """What O2 leaves in float32 the network has not: it trains as in O3, as test_step.py shows.

    O3 in graphs, auto in PyNative mode.
    """
    write_workspace(tmp_path)
    keys = {"amp_level": level, "val_amp_level": val_level, "loss_scale_type": "dynamic"}
    keys |= {"loss_scale": 2.0**power, "ema": True, "ema_decay": 0.5}
    keys |= {"gradient_accumulation_steps": 2, "clip_grad": True, "clip_value": 5.0}
    keys |= {"batch_size": 20, "drop_remainder": False, "num_classes": 5}
    keys |= {"epoch_size": 4, "val_while_train": True, "val_interval": 4, "log_interval": 1}
    keys |= {"ckpt_save_policy": "latest_k", "keep_checkpoint_max": 2}
    keys |= {"mode": int(level == "auto")}
    ended = forked.run("train.py", tmp_path, **keys)
    assert (ended.code, ended.err) == (0, "")

    folder = tmp_path / "run"
    rows = records(folder, "train")
    assert len(rows) == 12  # 48 images in batches of 20: three a epoch, the last one filled up
    for row in rows:  # updates at an epoch's second and last step; an overflow halves the scale
        epochs, steps = divmod(row["step"], 3)
        assert row["skipped_updates"] <= 2 * epochs + steps // 2
        assert row["loss_scale"] == 2.0 ** (power - row["skipped_updates"])
    assert 0 < rows[-1]["skipped_updates"] < 8
    assert all(np.isfinite(row["loss"]) for row in rows)

    last, best = weights(folder / "last.ckpt"), weights(folder / "best.ckpt")
    assert best["head.weight"].shape == (5, DIMS[-1])
    assert not [name for name in best if name.startswith("train.")]
    averages = [name for name in best if f"train.ema.{name}" in last]
    assert len(averages) == len(best)
    for name in best:
        assert (best[name] == last[f"train.ema.{name}"]).all()
    assert [name for name in run_files(folder) if "epoch" in name] == [
        "epoch_0003.ckpt",
        "epoch_0004.ckpt",
    ]


@pytest.fixture(scope="module")
def restrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """A run in PyNative mode from given weights, in file order, with its gradients clipped away."""
    folder = tmp_path_factory.mktemp("restrained")
    write_workspace(folder)
    network = PoolFormer(DEPTHS, DIMS, num_classes=3)
    rng = np.random.default_rng(1)
    head = rng.normal(size=(3, DIMS[-1])).astype(np.float32)
    network.head.weight.set_data(Tensor(head))
    ms.save_checkpoint(network, str(folder / "start.ckpt"))
    keys = {"mode": 1, "epoch_size": 1, "warmup_epochs": 0, "log_interval": 1, "shuffle": False}
    keys |= {"ckpt_path": "start.ckpt", "ckpt_save_policy": None, "weight_decay": 0.0}
    keys |= {"clip_grad": True, "clip_value": 1e-14, "drop_path_rate": 0.0, "batch_size": 24}
    keys |= {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "hflip": 0.0, "interpolation": "bicubic"}
    return folder, forked.run("train.py", folder, **keys)


@pytest.mark.long
def test_clipped_gradients_leave_the_given_weights(restrained: tuple[Path, Ended]) -> None:
    folder, ended = restrained
    assert (ended.code, ended.err) == (0, "")
    assert [name for name in run_files(folder / "run") if name.endswith("ckpt")] == ["last.ckpt"]
    last = weights(folder / "run" / "last.ckpt")
    for name, start in weights(folder / "start.ckpt").items():
        assert np.abs(last[name] - start).max() < 1e-7


@pytest.mark.long
def test_without_shuffle_the_batches_follow_the_names(restrained: tuple[Path, Ended]) -> None:
    folder, _ = restrained
    network = PoolFormer(DEPTHS, DIMS, num_classes=3)
    ms.load_param_into_net(network, ms.load_checkpoint(str(folder / "start.ckpt")))
    network.set_train(False)
    paths = sorted((folder / "data" / "train").glob("*/*.png"))
    expected = []
    for batch in (paths[:24], paths[24:]):
        logits = network(Tensor(np.stack([central_square(path) for path in batch]))).asnumpy()
        labels = [int(path.parent.name[-1]) for path in batch]
        odds = np.exp(logits.astype(np.float64))
        chosen = odds[np.arange(24), labels] / odds.sum(axis=1)
        expected.append(-np.log(chosen).mean())
    losses = [row["loss"] for row in records(folder / "run", "train")]
    np.testing.assert_allclose(losses, expected, atol=2e-4)


def central_square(path: Path) -> np.ndarray:
    """A 40 x 36 image's largest centred square at 32 pixels, normalised as ImageNet's."""
    image = Image.open(path).crop((2, 0, 38, 36)).resize((32, 32), Image.Resampling.BICUBIC)
    pixels = (np.asarray(image) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return pixels.transpose(2, 0, 1).astype(np.float32)
