"""Weights with timm's head, through every script: nothing may take them for the official head's."""

from __future__ import annotations

import json
from pathlib import Path

import forked
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from official import load_official_weights
from PIL import Image
from scripts import write_workspace
from small_network import DEPTHS, DIMS

from mindcv_poolformer.export.bundle import load_bundle
from mindcv_poolformer.models import PoolFormer
from mindcv_poolformer.runtime.checkpoint_file import read_checkpoint, save_checkpoint

pytestmark = pytest.mark.long


def test_train_validate_and_export_keep_the_head(tmp_path: Path) -> None:
    write_workspace(tmp_path)
    start = PoolFormer(DEPTHS, DIMS, num_classes=3, head="pool_norm")
    load_official_weights(start)
    weights = {parameter.name: parameter for parameter in start.get_parameters()}
    save_checkpoint(tmp_path / "timm.ckpt", weights, {"head": "pool_norm"})

    keys = {"ckpt_path": "timm.ckpt", "epoch_size": 1, "val_while_train": True, "warmup_epochs": 0}
    ended = forked.run("train.py", tmp_path, **keys)
    assert (ended.code, ended.err) == (0, "")
    best = tmp_path / "run" / "best.ckpt"
    assert read_checkpoint(best).metadata["head"] == "pool_norm"

    ended = forked.run("validate.py", tmp_path, result_file="report.json")
    assert (ended.code, ended.err) == (0, "")
    report = json.loads((tmp_path / "report.json").read_text())
    rows = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    (trained,) = [row for row in rows if row["kind"] == "val"]
    assert abs(report["loss"] - trained["loss"]) < 1e-5

    ended = forked.run("export.py", tmp_path)
    assert (ended.code, ended.err) == (0, "")
    bundle = load_bundle(tmp_path / "run" / "bundle")
    paths = sorted((tmp_path / "data" / "val").glob("*/*.png"))
    images = np.stack([bundle.transform(Image.open(path)) for path in paths])
    network = PoolFormer(DEPTHS, DIMS, num_classes=3, head="pool_norm")
    ms.load_param_into_net(network, ms.load_checkpoint(str(best)))
    logits = network.set_train(False)(Tensor(images)).asnumpy()
    np.testing.assert_allclose(bundle.logits(images), logits, atol=1e-4)
    labels = [int(path.parent.name.removeprefix("class")) for path in paths]
    odds = np.exp(logits.astype(np.float64))
    chosen = odds[np.arange(len(labels)), labels] / odds.sum(axis=1)
    assert abs(report["loss"] + np.log(chosen).mean()) < 1e-4
