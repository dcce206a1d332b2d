"""The lines on a run folder; those of classification are the demo's, in the README."""

from __future__ import annotations

import json
from pathlib import Path

from mindcv_poolformer.summary import summarize


def test_a_bundle_that_was_validated(tmp_path: Path) -> None:
    row = {"kind": "val", "step": 10, "epoch": 1, "images": 4, "top1": 75.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    facts = {"precision": "fp32", "runtime": "onnx", "top1": 75.0, "images": 4}
    (tmp_path / "validation.json").write_text(json.dumps(facts))
    assert list(summarize(tmp_path))[1] == "top-1 in fp32 75.00 %"


def test_a_run_of_segmentation(tmp_path: Path) -> None:
    rows = [
        {"kind": "val", "step": 10 * epoch, "epoch": epoch, "images": 4, "mIoU": score}
        for epoch, score in ((1, 31.0), (2, 42.5), (3, 40.0))
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "validation.json").write_text(
        json.dumps(
            {
                "amp_level": "O3",
                "mIoU": 42.25,
                "images": 4,
                "agreement": 99.5,
                "compared": {"amp_level": "O0", "mIoU": 42.5},
            }
        )
    )
    prediction = {"image": "a.png", "files": {"labels": "p/a.png", "overlay": "p/a_overlay.png"}}
    unread = {"image": "b.png", "error": "image b.png does not exist"}
    (tmp_path / "prediction.json").write_text(json.dumps([prediction, unread]))
    assert list(summarize(tmp_path)) == [
        "training     best mIoU 42.50 % after epoch 2",
        "mIoU in O0   42.50 %",
        "mIoU in O3   42.25 %",
        "agreement    99.50 % of the pixels of 4 images",
        "prediction   a.png: p/a_overlay.png",
        "prediction   b.png: image b.png does not exist",
    ]
